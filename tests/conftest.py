"""How far hypothesis searches: in `make test` the same examples every time, in `make fuzz` new ones."""

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # A base install, whose tests need none of it.
    pass
else:
    settings.register_profile("same", derandomize=True, database=None, deadline=None, print_blob=True)
    settings.register_profile(
        "fuzz",
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    settings.load_profile("same")
