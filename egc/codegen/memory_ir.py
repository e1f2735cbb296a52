"""The checksum of constants, and the memory functions that LLVM calls on its own, as LLVM IR.

The vectors are 64 bytes wide; a target with narrower registers splits them. `no-builtins` keeps LLVM from
turning a loop that copies into a call of the function that holds the loop.
"""

from __future__ import annotations

from string import Template

# See abi.CHUNK_BYTES for the definition and checksum.py for the same in numpy.
CHECKSUM_IR = Template("""
declare i64 @llvm.fshl.i64(i64, i64, i64)
declare i64 @llvm.umin.i64(i64, i64)

; h ← rotate((h ^ word) · MULTIPLIER, ROTATION) in each of the lanes, over one row of words.
define internal void @egc.hash.row(ptr %lanes, ptr %row) nounwind {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %lane.at = getelementptr i64, ptr %lanes, i64 %i
  %word.at = getelementptr i64, ptr %row, i64 %i
  %h = load <8 x i64>, ptr %lane.at, align 64
  %word = load <8 x i64>, ptr %word.at, align 1
  %mixed = xor <8 x i64> %h, %word
  %spread = mul <8 x i64> %mixed, splat (i64 $MULTIPLIER)
  %left = shl <8 x i64> %spread, splat (i64 $ROTATION)
  %right = lshr <8 x i64> %spread, splat (i64 $REST_ROTATION)
  %turned = or <8 x i64> %left, %right
  store <8 x i64> %turned, ptr %lane.at, align 64
  %next = add nuw i64 %i, 8
  %more = icmp ult i64 %next, $CHUNK_LANES
  br i1 %more, label %loop, label %done
done:
  ret void
}

; The hash of one chunk of at most CHUNK_BYTES; its last row is filled up with zeros.
define internal i64 @egc.hash.chunk(ptr %data, i64 %bytes) nounwind {
entry:
  %lanes = alloca [$CHUNK_LANES x i64], align 64
  %rest = alloca [$CHUNK_LANES x i64], align 64
  br label %seed
seed:
  %s = phi i64 [ 0, %entry ], [ %s.next, %seed ]
  %seed.at = getelementptr i64, ptr %lanes, i64 %s
  store i64 %s, ptr %seed.at
  %s.next = add nuw i64 %s, 1
  %s.more = icmp ult i64 %s.next, $CHUNK_LANES
  br i1 %s.more, label %seed, label %rows
rows:
  %at = phi i64 [ 0, %seed ], [ %at.next, %row ]
  %at.next = add nuw i64 %at, $ROW_BYTES
  %whole = icmp ule i64 %at.next, %bytes
  br i1 %whole, label %row, label %tail
row:
  %row.at = getelementptr i8, ptr %data, i64 %at
  call void @egc.hash.row(ptr %lanes, ptr %row.at)
  br label %rows
tail:
  %left = sub i64 %bytes, %at
  %none = icmp eq i64 %left, 0
  br i1 %none, label %fold, label %clear
clear:
  %c = phi i64 [ 0, %tail ], [ %c.next, %clear ]
  %clear.at = getelementptr i64, ptr %rest, i64 %c
  store i64 0, ptr %clear.at
  %c.next = add nuw i64 %c, 1
  %c.more = icmp ult i64 %c.next, $CHUNK_LANES
  br i1 %c.more, label %clear, label %copy
copy:
  %k = phi i64 [ 0, %clear ], [ %k.next, %copy ]
  %from.offset = add i64 %at, %k
  %from = getelementptr i8, ptr %data, i64 %from.offset
  %byte = load i8, ptr %from
  %to = getelementptr i8, ptr %rest, i64 %k
  store i8 %byte, ptr %to
  %k.next = add nuw i64 %k, 1
  %k.more = icmp ult i64 %k.next, %left
  br i1 %k.more, label %copy, label %last
last:
  call void @egc.hash.row(ptr %lanes, ptr %rest)
  br label %fold
fold:
  %half = phi i64 [ $HALF_LANES, %tail ], [ $HALF_LANES, %last ], [ %half.next, %fold.next ]
  br label %pair
pair:
  %p = phi i64 [ 0, %fold ], [ %p.next, %pair ]
  %q = add i64 %p, %half
  %low.at = getelementptr i64, ptr %lanes, i64 %p
  %high.at = getelementptr i64, ptr %lanes, i64 %q
  %low = load i64, ptr %low.at
  %high = load i64, ptr %high.at
  %low.spread = mul i64 %low, $MULTIPLIER
  %low.turned = call i64 @llvm.fshl.i64(i64 %low.spread, i64 %low.spread, i64 $ROTATION)
  %both = xor i64 %low.turned, %high
  store i64 %both, ptr %low.at
  %p.next = add nuw i64 %p, 1
  %p.more = icmp ult i64 %p.next, %half
  br i1 %p.more, label %pair, label %fold.next
fold.next:
  %half.next = lshr i64 %half, 1
  %done = icmp eq i64 %half.next, 0
  br i1 %done, label %finish, label %fold
finish:
  %all = load i64, ptr %lanes
  %sized = xor i64 %all, %bytes
  %hash = mul i64 %sized, $MULTIPLIER
  ret i64 %hash
}

define hidden void @$CHECKSUM(ptr %data, i64 %bytes, ptr %out) nounwind {
entry:
  %empty = icmp eq i64 %bytes, 0
  br i1 %empty, label %done, label %chunk
chunk:
  %i = phi i64 [ 0, %entry ], [ %next, %chunk ]
  %at = mul i64 %i, $CHUNK_BYTES
  %left = sub i64 %bytes, %at
  %size = call i64 @llvm.umin.i64(i64 %left, i64 $CHUNK_BYTES)
  %chunk.at = getelementptr i8, ptr %data, i64 %at
  %hash = call i64 @egc.hash.chunk(ptr %chunk.at, i64 %size)
  %out.at = getelementptr i64, ptr %out, i64 %i
  store i64 %hash, ptr %out.at
  %next = add i64 %i, 1
  %more = icmp ugt i64 %left, $CHUNK_BYTES
  br i1 %more, label %chunk, label %done
done:
  ret void
}
""")

MEMORY_IR = """
define hidden ptr @memcpy(ptr noalias %to, ptr noalias %from, i64 %bytes) #0 {
entry:
  %wide = and i64 %bytes, -64
  %any = icmp ne i64 %wide, 0
  br i1 %any, label %vector, label %rest
vector:
  %i = phi i64 [ 0, %entry ], [ %i.next, %vector ]
  %from.i = getelementptr i8, ptr %from, i64 %i
  %to.i = getelementptr i8, ptr %to, i64 %i
  %v = load <64 x i8>, ptr %from.i, align 1
  store <64 x i8> %v, ptr %to.i, align 1
  %i.next = add nuw i64 %i, 64
  %i.more = icmp ult i64 %i.next, %wide
  br i1 %i.more, label %vector, label %rest
rest:
  %left = icmp ult i64 %wide, %bytes
  br i1 %left, label %byte, label %done
byte:
  %k = phi i64 [ %wide, %rest ], [ %k.next, %byte ]
  %from.k = getelementptr i8, ptr %from, i64 %k
  %to.k = getelementptr i8, ptr %to, i64 %k
  %b = load i8, ptr %from.k
  store i8 %b, ptr %to.k
  %k.next = add nuw i64 %k, 1
  %k.more = icmp ult i64 %k.next, %bytes
  br i1 %k.more, label %byte, label %done
done:
  ret ptr %to
}

; Forwards where the target does not begin inside the source, backwards where it does. A whole vector is
; loaded before it is stored, so the order of vectors is all that matters.
define hidden ptr @memmove(ptr %to, ptr %from, i64 %bytes) #0 {
entry:
  %to.address = ptrtoint ptr %to to i64
  %from.address = ptrtoint ptr %from to i64
  %distance = sub i64 %to.address, %from.address
  %inside = icmp ult i64 %distance, %bytes
  br i1 %inside, label %backward, label %forward
forward:
  %ignored = call ptr @memcpy(ptr %to, ptr %from, i64 %bytes)
  ret ptr %to
backward:
  %end = phi i64 [ %bytes, %entry ], [ %start, %vector ]
  %enough = icmp uge i64 %end, 64
  br i1 %enough, label %vector, label %rest
vector:
  %start = sub i64 %end, 64
  %from.i = getelementptr i8, ptr %from, i64 %start
  %to.i = getelementptr i8, ptr %to, i64 %start
  %v = load <64 x i8>, ptr %from.i, align 1
  store <64 x i8> %v, ptr %to.i, align 1
  br label %backward
rest:
  %k = phi i64 [ %end, %backward ], [ %k.next, %byte ]
  %left = icmp ne i64 %k, 0
  br i1 %left, label %byte, label %done
byte:
  %k.next = sub i64 %k, 1
  %from.k = getelementptr i8, ptr %from, i64 %k.next
  %to.k = getelementptr i8, ptr %to, i64 %k.next
  %b = load i8, ptr %from.k
  store i8 %b, ptr %to.k
  br label %rest
done:
  ret ptr %to
}

define hidden ptr @memset(ptr %to, i32 %value, i64 %bytes) #0 {
entry:
  %byte.value = trunc i32 %value to i8
  %one = insertelement <64 x i8> poison, i8 %byte.value, i64 0
  %all = shufflevector <64 x i8> %one, <64 x i8> poison, <64 x i32> zeroinitializer
  %wide = and i64 %bytes, -64
  %any = icmp ne i64 %wide, 0
  br i1 %any, label %vector, label %rest
vector:
  %i = phi i64 [ 0, %entry ], [ %i.next, %vector ]
  %to.i = getelementptr i8, ptr %to, i64 %i
  store <64 x i8> %all, ptr %to.i, align 1
  %i.next = add nuw i64 %i, 64
  %i.more = icmp ult i64 %i.next, %wide
  br i1 %i.more, label %vector, label %rest
rest:
  %left = icmp ult i64 %wide, %bytes
  br i1 %left, label %byte, label %done
byte:
  %k = phi i64 [ %wide, %rest ], [ %k.next, %byte ]
  %to.k = getelementptr i8, ptr %to, i64 %k
  store i8 %byte.value, ptr %to.k
  %k.next = add nuw i64 %k, 1
  %k.more = icmp ult i64 %k.next, %bytes
  br i1 %k.more, label %byte, label %done
done:
  ret ptr %to
}

attributes #0 = { nounwind "no-builtins" }
"""
