"""The native part of the runtime as LLVM IR: threads and barriers, the checksum, and what LLVM itself calls.

Threads never share a lock: a run is an epoch that grows, a barrier is a counter and a generation that
grows. A thread that waits spins first (a barrier between kernels opens within a microsecond), then yields
its core, then sleeps in the operating system's kernel: with fewer free cores than threads the run still
makes progress, and an idle session costs nothing.
"""

from __future__ import annotations

import re
from string import Template

from msgspec import Struct

from egc.codegen.elf import LinkError
from egc.codegen.memory_ir import CHECKSUM_IR, MEMORY_IR
from egc.runtime import abi


class _Machine(Struct, frozen=True):
    """What differs per architecture: a pause while spinning, a system call and its numbers.

    `system_call` is machine code for `i64(number, a, b, c, d)`. It stands as bytes among the read-only
    data, which is mapped with the code, because assembling text would take an assembler for every target.
    """

    pause: str
    system_call: str
    futex: int
    yield_core: int


_MACHINES = {
    "x86_64": _Machine(
        pause="@llvm.x86.sse2.pause()",
        # mov rax, rdi; mov rdi, rsi; mov rsi, rdx; mov rdx, rcx; mov r10, r8; syscall; ret
        system_call="4889f8 4889f7 4889d6 4889ca 4d89c2 0f05 c3",
        futex=202,
        yield_core=24,
    ),
    # isb waits tens of cycles, as x86's pause does; yield is a no-op on most cores.
    "aarch64": _Machine(
        pause="@llvm.aarch64.isb(i32 15)",
        # mov x8, x0; mov x0, x1; mov x1, x2; mov x2, x3; mov x3, x4; svc #0; ret
        system_call="e80300aa e00301aa e10302aa e20303aa e30304aa 010000d4 c0035fd6",
        futex=98,
        yield_core=124,
    ),
}

# Machine code of `i64(number, a, b, c, d)` per architecture, in hexadecimal.
SYSTEM_CALLS = {name: machine.system_call for name, machine in _MACHINES.items()}


def runtime_ir(triple: str) -> str:
    """The runtime as one module, defining `abi.RUNTIME_FUNCTIONS`; LinkError for an unknown `triple`."""
    architecture, _, rest = triple.partition("-")
    machine = _MACHINES.get(architecture)
    if machine is None or "linux" not in rest:
        raise LinkError(
            f"no runtime for {triple}",
            hint=f"supported: Linux on {', '.join(sorted(_MACHINES))}",
        )
    names = {name: getattr(abi, name) for name in dir(abi) if name.isupper()}
    system_call = bytes.fromhex(machine.system_call)
    threads = _THREADS_IR.substitute(
        names,
        pause=machine.pause,
        pause_declaration=re.sub(r"\(i32 .*\)", "(i32)", machine.pause),
        system_call="".join(f"\\{byte:02x}" for byte in system_call),
        system_call_size=len(system_call),
        futex=machine.futex,
        yield_core=machine.yield_core,
    )
    return "\n".join([f'target triple = "{triple}"', threads, CHECKSUM_IR.substitute(names)])


def support_ir(triple: str) -> str:
    """memcpy, memmove and memset, which LLVM calls on its own: a module to link where it is wanted."""
    return f'target triple = "{triple}"\n{MEMORY_IR}'


# Futex operations 128 and 129 are FUTEX_WAIT and FUTEX_WAKE among the threads of one process.
_THREADS_IR = Template("""
declare i64 @llvm.readcyclecounter()
declare void $pause_declaration

@egc.system = internal unnamed_addr constant [$system_call_size x i8] c"$system_call", align 16

; rdtsc on x86-64, CNTVCT_EL0 on AArch64: both run at a fixed rate, whatever the core does.
define hidden i64 @$TICKS() nounwind {
  %now = call i64 @llvm.readcyclecounter()
  ret i64 %now
}

define internal void @egc.pause() alwaysinline nounwind {
  call void $pause
  ret void
}

define internal void @egc.yield() nounwind {
  %ignored = call i64 @egc.system(i64 $yield_core, i64 0, i64 0, i64 0, i64 0)
  ret void
}

; Sleep while *word = old. The kernel compares under its own lock, so a change just before is not missed.
define internal void @egc.sleep(ptr %word, i32 %old) nounwind {
  %value = zext i32 %old to i64
  %ignored = call i64 @egc.system(i64 $futex, ptr %word, i64 128, i64 %value, i64 0)
  ret void
}

define internal void @egc.wake(ptr %word) nounwind {
  %ignored = call i64 @egc.system(i64 $futex, ptr %word, i64 129, i64 2147483647, i64 0)
  ret void
}

; Let *word grow by one and wake who sleeps on it. Sequential consistency of the addition here and of the
; sleeper's counting below: either we see the sleeper, or it sees the new word.
define internal void @egc.advance(ptr %word, ptr %sleepers) nounwind {
entry:
  %before = atomicrmw add ptr %word, i32 1 seq_cst
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %none = icmp eq i32 %asleep, 0
  br i1 %none, label %done, label %wake
wake:
  call void @egc.wake(ptr %word)
  br label %done
done:
  ret void
}

; Return once *word differs from old: spin until %spin ticks have passed, yield until %yield, then sleep.
define internal void @egc.await(ptr %word, i32 %old, ptr %sleepers, i64 %spin, i64 %yield) nounwind {
entry:
  %start = call i64 @$TICKS()
  br label %spinning
spinning:
  %seen = load atomic i32, ptr %word acquire, align 4
  %changed = icmp ne i32 %seen, %old
  br i1 %changed, label %done, label %still
still:
  call void @egc.pause()
  %now = call i64 @$TICKS()
  %waited = sub i64 %now, %start
  %spin.over = icmp uge i64 %waited, %spin
  br i1 %spin.over, label %impatient, label %spinning
impatient:
  %yield.over = icmp uge i64 %waited, %yield
  br i1 %yield.over, label %count, label %yielding
yielding:
  call void @egc.yield()
  br label %spinning
count:
  %ignored = atomicrmw add ptr %sleepers, i32 1 seq_cst
  br label %sleeping
sleeping:
  %seen.late = load atomic i32, ptr %word seq_cst, align 4
  %changed.late = icmp ne i32 %seen.late, %old
  br i1 %changed.late, label %awake, label %sleep
sleep:
  call void @egc.sleep(ptr %word, i32 %old)
  br label %sleeping
awake:
  %ignored.too = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %done
done:
  ret void
}

; The last thread to arrive opens the barrier. It clears the counter first: nobody arrives again before it
; is open.
define internal void @egc.barrier(ptr %context, i64 %threads) nounwind {
entry:
  %arrived = getelementptr i8, ptr %context, i64 $CONTEXT_ARRIVED
  %generation = getelementptr i8, ptr %context, i64 $CONTEXT_GENERATION
  %sleepers = getelementptr i8, ptr %context, i64 $CONTEXT_GENERATION_SLEEPERS
  %old = load atomic i32, ptr %generation acquire, align 4
  %before = atomicrmw add ptr %arrived, i32 1 acq_rel
  %count = add i32 %before, 1
  %all = trunc i64 %threads to i32
  %last = icmp eq i32 %count, %all
  br i1 %last, label %open, label %wait
open:
  store atomic i32 0, ptr %arrived monotonic, align 4
  call void @egc.advance(ptr %generation, ptr %sleepers)
  ret void
wait:
  %spin.at = getelementptr i8, ptr %context, i64 $CONTEXT_BARRIER_SPIN
  %spin = load i64, ptr %spin.at
  %yield.at = getelementptr i8, ptr %context, i64 $CONTEXT_BARRIER_YIELD
  %yield = load i64, ptr %yield.at
  call void @egc.await(ptr %generation, i32 %old, ptr %sleepers, i64 %spin, i64 %yield)
  ret void
}

; One thread's walk over the table of steps. The last step always ends in a barrier, so that thread 0 returns
; only when all have finished.
define internal void @egc.walk(ptr %context, i64 %thread) nounwind {
entry:
  %steps.at = getelementptr i8, ptr %context, i64 $CONTEXT_STEPS
  %steps = load ptr, ptr %steps.at
  %count.at = getelementptr i8, ptr %context, i64 $CONTEXT_STEP_COUNT
  %count = load i64, ptr %count.at
  %threads.at = getelementptr i8, ptr %context, i64 $CONTEXT_THREADS
  %threads = load i64, ptr %threads.at
  %profile.at = getelementptr i8, ptr %context, i64 $CONTEXT_PROFILE
  %profile = load ptr, ptr %profile.at
  %alone = icmp eq i64 %threads, 1
  %first = icmp eq i64 %thread, 0
  %wanted = icmp ne ptr %profile, null
  %timing = and i1 %first, %wanted
  %empty = icmp eq i64 %count, 0
  br i1 %timing, label %begin, label %start
begin:
  %time.start = call i64 @$TICKS()
  store i64 %time.start, ptr %profile
  br label %start
start:
  br i1 %empty, label %done, label %step
step:
  %i = phi i64 [ 0, %start ], [ %next, %continue ]
  %step.at = getelementptr [$STEP_SIZE x i8], ptr %steps, i64 %i
  %function = load ptr, ptr %step.at
  %buffers.at = getelementptr i8, ptr %step.at, i64 $STEP_BUFFERS
  %buffers = load ptr, ptr %buffers.at
  %dims.at = getelementptr i8, ptr %step.at, i64 $STEP_DIMS
  %dims = load ptr, ptr %dims.at
  %flags.at = getelementptr i8, ptr %step.at, i64 $STEP_FLAGS
  %flags = load i64, ptr %flags.at
  call void %function(ptr %buffers, ptr %dims, i64 %thread, i64 %threads)
  %next = add i64 %i, 1
  %is.last = icmp eq i64 %next, %count
  %skip.bit = and i64 %flags, $FLAG_NO_BARRIER
  %may.skip = icmp ne i64 %skip.bit, 0
  %not.last = xor i1 %is.last, true
  %skip = and i1 %may.skip, %not.last
  %free = or i1 %skip, %alone
  br i1 %free, label %finished, label %meet
meet:
  call void @egc.barrier(ptr %context, i64 %threads)
  br label %finished
finished:
  br i1 %timing, label %time, label %continue
time:
  %time.at = getelementptr i64, ptr %profile, i64 %next
  %time.end = call i64 @$TICKS()
  store i64 %time.end, ptr %time.at
  br label %continue
continue:
  br i1 %is.last, label %done, label %step
done:
  ret void
}

define hidden void @$CALL(ptr %context) nounwind {
entry:
  %count.at = getelementptr i8, ptr %context, i64 $CONTEXT_STEP_COUNT
  %count = load i64, ptr %count.at
  %threads.at = getelementptr i8, ptr %context, i64 $CONTEXT_THREADS
  %threads = load i64, ptr %threads.at
  %alone = icmp eq i64 %threads, 1
  %empty = icmp eq i64 %count, 0
  %quiet = or i1 %alone, %empty
  br i1 %quiet, label %walk, label %start
start:
  %epoch = getelementptr i8, ptr %context, i64 $CONTEXT_EPOCH
  %sleepers = getelementptr i8, ptr %context, i64 $CONTEXT_EPOCH_SLEEPERS
  call void @egc.advance(ptr %epoch, ptr %sleepers)
  br label %walk
walk:
  call void @egc.walk(ptr %context, i64 0)
  ret void
}

; Runs and waits in turn until told to stop. The context is new, at epoch 0, when its workers are made.
define hidden void @$WORKER(ptr %context, i64 %thread) nounwind {
entry:
  %epoch = getelementptr i8, ptr %context, i64 $CONTEXT_EPOCH
  %sleepers = getelementptr i8, ptr %context, i64 $CONTEXT_EPOCH_SLEEPERS
  %shutdown = getelementptr i8, ptr %context, i64 $CONTEXT_SHUTDOWN
  %spin.at = getelementptr i8, ptr %context, i64 $CONTEXT_IDLE_SPIN
  %yield.at = getelementptr i8, ptr %context, i64 $CONTEXT_IDLE_YIELD
  br label %idle
idle:
  %seen = phi i32 [ 0, %entry ], [ %now, %run ]
  %spin = load i64, ptr %spin.at
  %yield = load i64, ptr %yield.at
  call void @egc.await(ptr %epoch, i32 %seen, ptr %sleepers, i64 %spin, i64 %yield)
  %now = add i32 %seen, 1
  %stop = load i64, ptr %shutdown
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %done, label %run
run:
  call void @egc.walk(ptr %context, i64 %thread)
  br label %idle
done:
  ret void
}

; Ends the life of all workers; called by thread 0 between runs.
define hidden void @$STOP(ptr %context) nounwind {
  %shutdown = getelementptr i8, ptr %context, i64 $CONTEXT_SHUTDOWN
  store i64 1, ptr %shutdown
  %epoch = getelementptr i8, ptr %context, i64 $CONTEXT_EPOCH
  %sleepers = getelementptr i8, ptr %context, i64 $CONTEXT_EPOCH_SLEEPERS
  call void @egc.advance(ptr %epoch, ptr %sleepers)
  ret void
}
""")
