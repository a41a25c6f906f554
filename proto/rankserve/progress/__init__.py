"""How far work is: whoever works says so, and whoever started the process decides who hears it.

    with stage("tokenising", len(prompts), "prompts") as tokenising:
        for batch in batches:
            ...
            tokenising.advance(len(batch))
    for turn in track(range(5), "measuring", "turns"):
        ...

A command shows its stages with ``report_on(sys.stderr)``: as a live line on a terminal, as whole lines
anywhere else. Code that nobody listens to says nothing, as with logging.

The live line is drawn by rich, which typer brings in every install; tqdm would be one more package there.
What a line says is our own: a log and a terminal say the same, and neither library writes lines for logs.
"""

from rankserve.progress.current import report_on, report_to, stage, tell, track
from rankserve.progress.lines import Lines
from rankserve.progress.reporter import Reporter
from rankserve.progress.stage import Stage
from rankserve.progress.units import duration

__all__ = ["Lines", "Reporter", "Stage", "duration", "report_on", "report_to", "stage", "tell", "track"]
