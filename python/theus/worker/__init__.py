"""What runs in worker processes.

::

    zygote.py       started by the host; runs
    zygote_process.py  what imports what workers need, forks them, reports their ends
      process.py    what a process sheds when it becomes a zygote or a worker
      preload.py    the modules that are imported before the fork
    main.py         a worker: takes a task, runs it, answers; until the host is gone
      seeding.py    its random streams      blas.py  its threads
      status.py     the page that tells which task it runs
      link.py       its connection to the host: frames in both directions
      received.py   values, tasks and arrays as they come, not decoded yet
      segments.py   the shared memory that it has mapped
      tasks.py      one task: decode, call, answer
        functions.py  which function is meant
        context.py    its ctx
        heavy.py      ctx.heavy             log.py   ctx.log
        granted.py    memory for a result
        results.py    what it returned      failures.py  what it raised
    frames.py       frames on a socket      wire.py  what is in them (docs/internals.md)

Nothing here loads the Go library: workers talk to the host over an inherited socket and map
shared memory themselves.

A worker runs one task at a time. It reads frames between tasks and whenever user code asks the
host for something, and then handles every kind of frame, so that neither side ever waits for
something that lies behind what it does not read.
"""
