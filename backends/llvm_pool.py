"""Threads for loops, as LLVM IR: a job is blocks 0 to n - 1 of a function, taken by whoever is free.

    slpc.parallel(pool, block, environment, n, most)      # block(environment, from, to, thread) for all of 0 to n

At most so many threads take part, and no more than there are blocks, the caller as thread 0, so that each can have
memory of its own. Blocks are taken in order, so that a block may wait for those before it: `slpc.await(pool, at, turn)`
returns when the word there is that or greater.

The pool is a record of words (below), its workers are threads that run `slpc.worker`. A worker that has nothing to do
looks for a job some microseconds long, then sleeps on a lock of its own until it is woken. The caller takes blocks too,
closes the job when none is left, and waits for those workers only that are in it; one that comes late finds the job
closed. While the pool is busy, or has no workers, a caller runs all blocks by itself: what a block computes does not
depend on who runs it.

A block must not start a job: its thread is the argument, and whoever starts one is thread 0.

Locks and threads are those of CPython's `PyThread` functions, which every platform has and which need no interpreter.
"""

from __future__ import annotations

import os

PARALLEL, GEMM_F32, GEMM_F64, AWAIT, WORKERS = 0, 1, 2, 3, 4
BUSY, OPEN, NEXT, INSIDE, EPOCH, WAITING = 8, 16, 24, 32, 40, 48
BLOCK, ENVIRONMENT, COUNT, DONE, MOST, SHUT, FIRST = 56, 57, 58, 59, 60, 61, 64
"""Words of a pool: routines, then what threads change, each in a cache line of its own; then the job, the lock on which
the caller sleeps, how many threads may take part, a lock that nobody opens, and the workers' records."""
POOL, ASLEEP, LOCK, NUMBER, RECORD = 0, 1, 2, 3, 16
"""Words of a worker's record, and how many it has."""
LOOKS = 500
"""How often a worker looks for a job before it sleeps, and a caller for workers to leave; some 10 microseconds."""
NAP = 50
"""Microseconds that a block sleeps which waits for another's turn, after it has looked for `LOOKS` times."""


def threads() -> int:
    """How many threads share a loop: `SLPC_NUM_THREADS`, else `OMP_NUM_THREADS`, else the cores that this process may
    use. The pool has as many when it starts."""
    for name in ("SLPC_NUM_THREADS", "OMP_NUM_THREADS"):
        wanted = os.environ.get(name, "")
        if wanted.isdecimal() and int(wanted):
            return min(int(wanted), 256)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _word(name: str, number: int, base: str = "%pool") -> str:
    return f"  %{name} = getelementptr i64, ptr {base}, i64 {number}\n"


def text(pause: str) -> str:
    """The functions; `pause` is the instruction by which a core says that it only looks."""
    declared = "declare void @llvm.x86.sse2.pause()\n" if "x86" in pause else ""
    return declared + f"""\
declare i64 @llvm.smin.i64(i64, i64)
declare i32 @PyThread_acquire_lock(ptr, i32)
declare i32 @PyThread_acquire_lock_timed(ptr, i64, i32)
declare void @PyThread_release_lock(ptr)

; Blocks of the job that is open, until none is left.
define internal void @slpc.take(ptr %pool, i64 %thread) #0 {{
entry:
{_word("block.at", BLOCK)}{_word("environment.at", ENVIRONMENT)}{_word("count.at", COUNT)}{_word("next.at", NEXT)}\
  %block = load ptr, ptr %block.at
  %environment = load ptr, ptr %environment.at
  %count = load i64, ptr %count.at
  br label %look
look:
  %i = atomicrmw add ptr %next.at, i64 1 seq_cst
  %some = icmp slt i64 %i, %count
  br i1 %some, label %one, label %done
one:
  %j = add i64 %i, 1
  call void %block(ptr %environment, i64 %i, i64 %j, i64 %thread)
  br label %look
done:
  ret void
}}

define void @slpc.parallel(ptr %pool, ptr %block, ptr %environment, i64 %n, i64 %most) #0 {{
entry:
{_word("workers.at", WORKERS)}{_word("busy.at", BUSY)}\
  %workers = load i64, ptr %workers.at
  %least = call i64 @llvm.smin.i64(i64 %n, i64 %most)
  %several = icmp sgt i64 %least, 1
  %some = icmp sgt i64 %workers, 0
  %shared = and i1 %several, %some
  br i1 %shared, label %try, label %alone
try:
  %got = cmpxchg ptr %busy.at, i64 0, i64 1 seq_cst seq_cst
  %free = extractvalue {{ i64, i1 }} %got, 1
  br i1 %free, label %open, label %alone
alone:
  call void %block(ptr %environment, i64 0, i64 %n, i64 0)
  ret void
open:
{_word("block.at", BLOCK)}{_word("environment.at", ENVIRONMENT)}{_word("count.at", COUNT)}{_word("next.at", NEXT)}\
{_word("open.at", OPEN)}{_word("inside.at", INSIDE)}{_word("epoch.at", EPOCH)}{_word("waiting.at", WAITING)}\
{_word("done.at", DONE)}{_word("most.at", MOST)}{_word("records", FIRST)}\
  store ptr %block, ptr %block.at
  store ptr %environment, ptr %environment.at
  store i64 %n, ptr %count.at
  store i64 %least, ptr %most.at
  store atomic i64 0, ptr %next.at seq_cst, align 8
  store atomic i64 1, ptr %open.at seq_cst, align 8
  %epoch = atomicrmw add ptr %epoch.at, i64 1 seq_cst
  %others = sub i64 %least, 1
  %few = icmp slt i64 %others, %workers
  %wanted = select i1 %few, i64 %others, i64 %workers
  br label %wake
wake:
  %w = phi i64 [ 0, %open ], [ %w1, %awake ]
  %record.offset = mul i64 %w, {RECORD}
  %record = getelementptr i64, ptr %records, i64 %record.offset
{_word("asleep.at", ASLEEP, "%record")}{_word("lock.at", LOCK, "%record")}\
  %asleep = atomicrmw xchg ptr %asleep.at, i64 0 seq_cst
  %sleeps = icmp eq i64 %asleep, 1
  br i1 %sleeps, label %ring, label %awake
ring:
  %lock = load ptr, ptr %lock.at
  call void @PyThread_release_lock(ptr %lock)
  br label %awake
awake:
  %w1 = add i64 %w, 1
  %more = icmp slt i64 %w1, %wanted
  br i1 %more, label %wake, label %work
work:
  call void @slpc.take(ptr %pool, i64 0)
  store atomic i64 0, ptr %open.at seq_cst, align 8
  br label %wait
wait:
  %looked = phi i64 [ 0, %work ], [ %looked1, %again ]
  %inside = load atomic i64, ptr %inside.at seq_cst, align 8
  %empty = icmp eq i64 %inside, 0
  br i1 %empty, label %finished, label %again
again:
  {pause}
  %looked1 = add i64 %looked, 1
  %patient = icmp slt i64 %looked1, {LOOKS}
  br i1 %patient, label %wait, label %sleep
sleep:
  %was = atomicrmw xchg ptr %waiting.at, i64 1 seq_cst
  %inside2 = load atomic i64, ptr %inside.at seq_cst, align 8
  %empty2 = icmp eq i64 %inside2, 0
  br i1 %empty2, label %recall, label %block.here
recall:
  %still = atomicrmw xchg ptr %waiting.at, i64 0 seq_cst
  %own.again = icmp eq i64 %still, 1
  br i1 %own.again, label %finished, label %block.here
block.here:
  %done.lock = load ptr, ptr %done.at
  %locked = call i32 @PyThread_acquire_lock(ptr %done.lock, i32 1)
  br label %finished
finished:
  store atomic i64 0, ptr %busy.at seq_cst, align 8
  ret void
}}

define void @slpc.await(ptr %pool, ptr %at, i64 %turn) #0 {{
entry:
{_word("shut.at", SHUT)}\
  br label %look
look:
  %looked = phi i64 [ 0, %entry ], [ %looked1, %again ], [ %looked, %nap ]
  %now = load atomic i64, ptr %at acquire, align 8
  %reached = icmp sge i64 %now, %turn
  br i1 %reached, label %done, label %wait
wait:
  %patient = icmp slt i64 %looked, {LOOKS}
  br i1 %patient, label %again, label %nap
again:
  {pause}
  %looked1 = add i64 %looked, 1
  br label %look
nap:
  %shut = load ptr, ptr %shut.at
  %got = call i32 @PyThread_acquire_lock_timed(ptr %shut, i64 {NAP}, i32 0)
  br label %look
done:
  ret void
}}

define void @slpc.worker(ptr %record) #0 {{
entry:
{_word("pool.at", POOL, "%record")}{_word("asleep.at", ASLEEP, "%record")}{_word("lock.at", LOCK, "%record")}\
{_word("number.at", NUMBER, "%record")}\
  %pool = load ptr, ptr %pool.at
  %lock = load ptr, ptr %lock.at
  %number = load i64, ptr %number.at
{_word("open.at", OPEN)}{_word("inside.at", INSIDE)}{_word("epoch.at", EPOCH)}{_word("waiting.at", WAITING)}\
{_word("done.at", DONE)}{_word("most.at", MOST)}\
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %now, %out ], [ %now, %ask ], [ %now, %ring ]
  br label %look
look:
  %looked = phi i64 [ 0, %idle ], [ %looked1, %again ]
  %epoch = load atomic i64, ptr %epoch.at seq_cst, align 8
  %same = icmp eq i64 %epoch, %seen
  br i1 %same, label %again, label %enter
again:
  {pause}
  %looked1 = add i64 %looked, 1
  %patient = icmp slt i64 %looked1, {LOOKS}
  br i1 %patient, label %look, label %sleep
sleep:
  %was = atomicrmw xchg ptr %asleep.at, i64 1 seq_cst
  %epoch2 = load atomic i64, ptr %epoch.at seq_cst, align 8
  %same2 = icmp eq i64 %epoch2, %seen
  br i1 %same2, label %block.here, label %recall
recall:
  %still = atomicrmw xchg ptr %asleep.at, i64 0 seq_cst
  %own = icmp eq i64 %still, 1
  br i1 %own, label %enter, label %block.here
block.here:
  %locked = call i32 @PyThread_acquire_lock(ptr %lock, i32 1)
  br label %enter
enter:
  %now = load atomic i64, ptr %epoch.at seq_cst, align 8
  %before = atomicrmw add ptr %inside.at, i64 1 seq_cst
  %is.open = load atomic i64, ptr %open.at seq_cst, align 8
  %most = load i64, ptr %most.at
  %opened = icmp eq i64 %is.open, 1
  %admitted = icmp slt i64 %number, %most
  %there = and i1 %opened, %admitted
  br i1 %there, label %work, label %out
work:
  call void @slpc.take(ptr %pool, i64 %number)
  br label %out
out:
  %inside = atomicrmw sub ptr %inside.at, i64 1 seq_cst
  %last = icmp eq i64 %inside, 1
  br i1 %last, label %ask, label %idle
ask:
  %waits = atomicrmw xchg ptr %waiting.at, i64 0 seq_cst
  %rung = icmp eq i64 %waits, 1
  br i1 %rung, label %ring, label %idle
ring:
  %done.lock = load ptr, ptr %done.at
  call void @PyThread_release_lock(ptr %done.lock)
  br label %idle
}}
"""
