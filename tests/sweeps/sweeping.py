"""A sweep in this process, as most tests run it."""

import accelsim


def sweep(spec, out=None, **options):
    return accelsim.sweep(spec, out, **{"jobs": 1, "progress": False, **options})
