"""Loop nests in, machine code out: LLVM IR, objects, one linked blob, the memory plan."""
