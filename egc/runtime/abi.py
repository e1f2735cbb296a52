"""What generated code and the runtime agree on: the context of a program, its table of steps, the checksum.

A kernel is `void kernel(ptr* buffers, i64* dims, i64 thread, i64 threads)`. A program is a table of steps;
every thread walks it and meets the others at a barrier after each step. Offsets and sizes are in bytes; all
fields are 8 bytes unless said otherwise. Words that different threads write lie on cache lines of their
own.
"""

from __future__ import annotations

from typing import Final

# The context, one per session. The first four are 4-byte words, as futexes are.
CONTEXT_EPOCH: Final = 0  # grows by one at the start of each run
CONTEXT_EPOCH_SLEEPERS: Final = 64  # workers asleep until the next epoch
CONTEXT_ARRIVED: Final = 128  # threads that have reached the barrier
CONTEXT_GENERATION: Final = 192  # grows by one each time a barrier opens
CONTEXT_GENERATION_SLEEPERS: Final = 256  # threads asleep at the barrier
# Written by the caller between runs, read by all.
CONTEXT_STEPS: Final = 320  # address of the first step
CONTEXT_STEP_COUNT: Final = 328
CONTEXT_THREADS: Final = 336
CONTEXT_SHUTDOWN: Final = 344  # not zero: workers return at the next epoch
CONTEXT_BARRIER_SPIN: Final = 352  # ticks a thread spins at a barrier, …
CONTEXT_BARRIER_YIELD: Final = 360  # … and ticks until it sleeps; in between it yields its core
CONTEXT_IDLE_SPIN: Final = 368  # the same two for a worker between runs
CONTEXT_IDLE_YIELD: Final = 376
CONTEXT_PROFILE: Final = 384  # 0, or the address of step_count + 1 times, in ticks, that thread 0 writes
CONTEXT_SIZE: Final = 448

# A step of the table.
STEP_FUNCTION: Final = 0
STEP_BUFFERS: Final = 8  # address of the kernel's buffer pointers
STEP_DIMS: Final = 16  # address of the kernel's dims
STEP_FLAGS: Final = 24
STEP_SIZE: Final = 32
FLAG_NO_BARRIER: Final = 1  # the next step may start before all threads have finished this one

# Names of the run-time functions in the linked code.
CALL: Final = "egc_call"  # void(context): one run of the table, by the calling thread, which is thread 0
WORKER: Final = "egc_worker"  # void(context, i64 thread): the life of another thread
STOP: Final = "egc_stop"  # void(context): ends the workers' lives
CHECKSUM: Final = "egc_checksum"  # void(data, i64 bytes, u64* out): one hash per CHUNK_BYTES of data
TICKS: Final = "egc_ticks"  # i64(): a clock that only grows
RUNTIME_FUNCTIONS: Final = (CALL, WORKER, STOP, CHECKSUM, TICKS)

MAX_THREADS: Final = 256

# The checksum: CHUNK_LANES running hashes of 64-bit words, h ← rotate((h ^ word) · MULTIPLIER, ROTATION),
# then folded pairwise. Each step is a bijection of h, so damage within one word of a chunk is always found.
# Lanes fill half of a 32 KiB L1 cache: wide enough for numpy to hash at memory speed as well.
CHUNK_BYTES: Final = 4 << 20
CHUNK_LANES: Final = 2048
HALF_LANES: Final = CHUNK_LANES // 2
ROW_BYTES: Final = 8 * CHUNK_LANES
MULTIPLIER: Final = 0x9E3779B97F4A7C15  # odd; 2⁶⁴ divided by the golden ratio (Knuth, TAOCP 3, §6.4)
ROTATION: Final = 29
REST_ROTATION: Final = 64 - ROTATION

# Files are mapped in units of the largest page that the architecture uses.
PAGE_BYTES: Final = {"x86_64": 4096, "aarch64": 65536, "nvptx64": 4096}
ALIGNMENT: Final = 64  # of every constant and every buffer of the arena: a cache line
