"""Loop nests in their text form, for tests of scheduling's consumers."""

from __future__ import annotations

from msgspec.structs import replace

from egc.ir.nest import Nest
from egc.ir.text import parse_nest

# y[m, n] = relu(a[m, k] · b[k, n]) in a register tile, b in panels.
PRODUCT = """
kernel product(in a: float32[{m}, {k}], const in b: float32[{k}, {n}], out y: float32[{m}, {n}]) {{
  stage product over i:{m}, j:{n} reduce add r:{k}
    value = mul(a[i, r], b[r, j])
    y[i, j] = relu(acc)
}}
pack b dim 1 by {columns}
for j step {columns} par
  for i step {rows} par
    for r step 1 seq
      for i step 1 unroll
        for j step {lanes} unroll
          for j step 1 vec
            do product
"""

# A channels-last convolution, 3 x 3, padded: the guard stands outside the loop over channels.
CONVOLUTION = """
kernel convolution(in x: float32[{size}, {size}, {inner}], const in w: float32[3, 3, {inner}, {outer}], \
out y: float32[{size}, {size}, {outer}]) {{
  stage convolution over h:{size}, p:{size}, o:{outer} reduce add u:3, v:3, c:{inner}
    value = mul((x[h + u - 1, p + v - 1, c] if inside(h + u - 1, {size}) and inside(p + v - 1, {size}) \
else 0.0), w[u, v, c, o])
    y[h, p, o] = acc
}}
pack w dim 3 by {columns}
for o step {columns} par
  for h step 1 par
    for p step {rows} par
      for u step 1 seq
        for v step 1 seq
          for c step 1 seq
            for p step 1 unroll
              for o step {lanes} unroll
                for o step 1 vec
                  do convolution
"""

# Four stages under the loop over rows: `top` and `sum` hold one element, `grown` one row.
SOFTMAX = """
kernel softmax(in x: float32[{n}, {m}], out y: float32[{n}, {m}]) shared 1 {{
  local top: float32[{n}]
  local grown: float32[{n}, {m}]
  local sum: float32[{n}]
  stage top over i:{n} reduce max j:{m}
    value = x[i, j]
    top[i] = acc
  stage grown over i:{n}, j:{m}
    grown[i, j] = exp(sub(x[i, j], top[i]))
  stage sum over i:{n} reduce add j:{m}
    value = grown[i, j]
    sum[i] = acc
  stage y over i:{n}, j:{m}
    y[i, j] = div(grown[i, j], sum[i])
}}
for i step {tile} par
{inner}"""

# k is transposed into a local buffer, which makes the product's vector loads contiguous.
TRANSPOSED = """
kernel scores(in q: float32[{h}, {m}, {k}], in t: float32[{h}, {n}, {k}], out y: float32[{h}, {m}, {n}]) \
shared 1 {{
  local s: float32[{h}, {k}, {n}]
  stage turn over b:{h}, r:{k}, j:{n}
    s[b, r, j] = t[b, j, r]
  stage scores over b:{h}, i:{m}, j:{n} reduce add r:{k}
    value = mul(q[b, i, r], s[b, r, j])
    y[b, i, j] = mul(acc, 0.125)
}}
for b step 1 par
  for j step 8 seq
    for r step 4 seq
      for r step 1 unroll
        for j step 1 vec
          do turn
  for j step 16 seq
    for i step 3 seq
      for r step 1 seq
        for i step 1 unroll
          for j step 8 unroll
            for j step 1 vec
              do scores
"""


def ahead(nest: Nest) -> Nest:
    """The nest, with its panels fetched ahead."""
    return replace(nest, packs=tuple(replace(pack, ahead=True) for pack in nest.packs))


def product(m: object, k: object, n: object, rows: int, columns: int, lanes: int) -> Nest:
    return parse_nest(PRODUCT.format(m=m, k=k, n=n, rows=rows, columns=columns, lanes=lanes))


def convolution(size: int, inner: int, outer: int, rows: int, columns: int, lanes: int) -> Nest:
    text = CONVOLUTION.format(size=size, inner=inner, outer=outer, rows=rows, columns=columns, lanes=lanes)
    return parse_nest(text)


def softmax(n: object, m: object, lanes: int, tile: int = 1) -> Nest:
    inner = ""
    for stage in ("top", "grown", "sum", "y"):
        depth = 1
        if tile > 1:
            inner += "  for i step 1 seq\n"
            depth = 2
        inner += "  " * depth + f"for j step {lanes} seq\n" + "  " * (depth + 1) + "for j step 1 vec\n"
        inner += "  " * (depth + 2) + f"do {stage}\n"
    return parse_nest(SOFTMAX.format(n=n, m=m, tile=tile, inner=inner))


def transposed_scores(h: object, m: object, k: object, n: object) -> Nest:
    return parse_nest(TRANSPOSED.format(h=h, m=m, k=k, n=n))
