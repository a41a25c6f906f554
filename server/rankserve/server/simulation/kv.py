"""The KV cache of a compiled run: how many blocks are free and, with prefix caching, whose they were.

Freed blocks go to the end of a list, those of a request in one segment, and blocks are taken from its front.
Within a segment the last block of the request is taken first, so what is left of it are leading blocks, which
the request finds again when it resumes: vLLM's block pool, counted instead of enumerated.
"""

from rankserve.server.compiled import compiled
from rankserve.server.simulation.layout import Books, Options


@compiled
def blocks_for(options: Options, tokens: int) -> int:
    """KV blocks that a request with this many tokens holds for itself."""
    blocks = (tokens + options.block_size - 1) // options.block_size
    return max(0, blocks - options.shared_blocks)


@compiled
def take(books: Books, options: Options, blocks: int) -> None:
    """Takes free blocks, those that were freed first."""
    state = books.state[0]
    state.free_blocks -= blocks
    if options.prefix_caching:
        while blocks > 0:
            segment = books.free_list[state.first_segment % len(books.free_list)]
            taken = min(blocks, segment[1])
            segment[1] -= taken
            blocks -= taken
            if segment[1] == 0:
                state.first_segment += 1


@compiled
def give_back(books: Books, options: Options, item: int, blocks: int) -> None:
    """Frees the blocks of a request."""
    state = books.state[0]
    state.free_blocks += blocks
    if options.prefix_caching and blocks > 0:
        segment = books.free_list[state.segments % len(books.free_list)]
        segment[0], segment[1] = item, blocks
        books.requests[item].segment = state.segments
        state.segments += 1


@compiled
def take_again(books: Books, options: Options, item: int, prefix: int) -> int:
    """Takes those of a resuming request's own blocks that are left, as far as they are of use.

    Returns how many; the last token is always computed anew.
    """
    state, request = books.state[0], books.requests[item]
    if not options.prefix_caching or request.segment < state.first_segment:
        return 0
    segment = books.free_list[request.segment % len(books.free_list)]
    useful = min(prefix - 1, request.computed) // options.block_size - options.shared_blocks
    blocks = max(0, min(segment[1], useful))
    segment[1] -= blocks
    state.free_blocks -= blocks
    return int(blocks)
