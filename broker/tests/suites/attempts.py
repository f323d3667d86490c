"""Running a test again whose failure shows a fault of its client that no broker can cause or mend."""

# How often at most.
MOST = 3


def outcome_of(once, client_fault, log):
    """The outcome of the last attempt: of the first, unless that one failed and `client_fault`, given its outcome, names
    what the client did wrong ("" if nothing). `once` makes an attempt, whose output goes to the file `log`; what earlier
    ones wrote there stays beside it, numbered. The reason says what happened before."""
    faults = []
    while True:
        outcome = once()
        fault = client_fault(outcome) if outcome.result == "fail" else ""
        if not fault or len(faults) + 1 == MOST:
            break
        faults.append(fault)
        log.rename(log.with_stem(f"{log.stem}-{len(faults)}"))
        log.touch()
    if not faults:
        return outcome
    before = f"(attempt {len(faults) + 1}: before, the client itself {', '.join(faults)})"
    return outcome._replace(why=f"{outcome.why} {before}".lstrip())
