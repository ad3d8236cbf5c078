"""Says how long ago something was, as people say it."""

UNITS = ((365 * 86400, "year"), (30 * 86400, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def ago(then, now):
    """Returns the time from `then` to `now`, in its largest unit."""
    seconds = max(0, int(now - then))
    for size, name in UNITS:
        if seconds >= size:
            count = seconds // size
            return "%d %s%s ago" % (count, name, "s" if count > 1 else "")
    return "just now"
