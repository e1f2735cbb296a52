"""Small kernels of every kind that the loop rules speak of, with names as the compiler gives them."""

from __future__ import annotations

from collections.abc import Mapping

# Each with its axes' extents left open: {a}, {b} are positions, {k} is reduced over.
KERNELS: Mapping[str, str] = {
    "map": """
kernel map(in x: float32[{a}], out y: float32[{a}]) {{
  stage s0 over i0:{a}
    y[i0] = neg(x[i0])
}}""",
    "sum": """
kernel sum(in x: float32[{a}, {k}], out y: float32[{a}]) {{
  stage s0 over i0:{a} reduce add k0:{k}
    value = x[i0, k0]
    y[i0] = acc
}}""",
    "scatter": """
kernel scatter(in at: int64[{a}], in x: float32[{a}], out y: float32[3]) {{
  stage s0 over i0:{a}
    y[at[i0]] add= x[i0]
}}""",
    "max": """
kernel max(in x: int32[{a}, {k}], out y: int32[{a}]) {{
  stage s0 over i0:{a} reduce max k0:{k}
    value = x[i0, k0]
    y[i0] = acc
}}""",
    "turn": """
kernel turn(in x: float32[{b}, {a}], in c: float32[{b}], out y: float32[{a}, {b}]) {{
  stage s0 over i0:{a}, i1:{b}
    y[i0, i1] = relu(add(x[i1, i0], c[i1]))
}}""",
    "columns": """
kernel columns(in x: float32[{k}, {a}], out y: float32[{a}]) {{
  stage s0 over i0:{a} reduce add k0:{k}
    value = x[k0, i0]
    y[i0] = acc
}}""",
    "product": """
kernel product(in a: float32[{a}, {k}], const in b: float32[{k}, {b}], out y: float32[{a}, {b}]) {{
  stage s0 over i0:{a}, i1:{b} reduce add k0:{k}
    value = mul(a[i0, k0], b[k0, i1])
    y[i0, i1] = relu(acc)
}}""",
    "running": """
kernel running(in x: float32[{a}], out y: float32[{a}]) {{
  stage s0 over i0:{a} ordered
    y[i0] = add(x[i0], (y[i0 - 1] if inside(i0 - 1, {a}) else 0.0))
}}""",
    "place": """
kernel place(in at: int64[{a}, {b}], in x: float32[{a}, {b}], out y: float32[3]) {{
  stage s0 over i0:{a}, i1:{b} ordered
    y[at[i0, i1]] = x[i0, i1]
}}""",
    "centre": """
kernel centre(in x: float32[{a}, {b}], out y: float32[{a}, {b}]) shared 1 {{
  local top: float32[{a}]
  stage s0 over i0:{a} reduce max k0:{b}
    value = x[i0, k0]
    top[i0] = acc
  stage s1 over i0:{a}, i1:{b}
    y[i0, i1] = sub(x[i0, i1], top[i0])
}}""",
    "softmax": """
kernel softmax(in x: float32[{a}, {b}], out y: float32[{a}, {b}]) shared 1 {{
  local top: float32[{a}]
  local e: float32[{a}, {b}]
  local sum: float32[{a}]
  stage s0 over i0:{a} reduce max k0:{b}
    value = x[i0, k0]
    top[i0] = acc
  stage s1 over i0:{a}, i1:{b}
    e[i0, i1] = exp(sub(x[i0, i1], top[i0]))
  stage s2 over i0:{a} reduce add k0:{b}
    value = e[i0, k0]
    sum[i0] = acc
  stage s3 over i0:{a}, i1:{b}
    y[i0, i1] = div(e[i0, i1], sum[i0])
}}""",
    "window": """
kernel window(in x: float32[1, {a}, {k}], const in w: float32[2, {k}, {b}], out y: float32[1, {a}, {b}]) {{
  stage s0 over i0:1, i1:{a}, i2:{b} reduce add k0:{k}, k1:2
    value = mul((x[i0, i1 + k1 - 1, k0] if inside(i1 + k1 - 1, {a}) else 0.0), w[k1, k0, i2])
    y[i0, i1, i2] = acc
}}""",
    "attend": """
kernel attend(in q: float32[{a}, {k}], const in t: float32[{b}, {k}], out y: float32[{a}, {b}]) shared 1 {{
  local s: float32[{a}, {b}]
  local top: float32[{a}]
  stage s0 over i0:{a}, i1:{b} reduce add k0:{k}
    value = mul(q[i0, k0], t[i1, k0])
    s[i0, i1] = acc
  stage s1 over i0:{a} reduce max k0:{b}
    value = s[i0, k0]
    top[i0] = acc
  stage s2 over i0:{a}, i1:{b}
    y[i0, i1] = sub(s[i0, i1], top[i0])
}}""",
    "scores": """
kernel scores(in q: float32[{a}, {b}, {k}], in t: float32[{a}, {b}, {k}], out y: float32[{a}, {b}, {b}]) \
shared 1 {{
  local s: float32[{a}, {k}, {b}]
  stage s0 over i0:{a}, i1:{k}, i2:{b}
    s[i0, i1, i2] = t[i0, i2, i1]
  stage s1 over i0:{a}, i1:{b}, i2:{b} reduce add k0:{k}
    value = mul(q[i0, i1, k0], s[i0, k0, i2])
    y[i0, i1, i2] = acc
}}""",
    "mix": """
kernel mix(in a: float32[{a}, 3, 12], const in b: float32[2, 6, 12], out y: float32[{a}, 3, 12]) {{
  stage s0 over i0:{a}, i1:3, i2:12 reduce add k0:2, k1:6
    value = mul(a[i0, i1, 6*k0 + k1], b[k0, k1, i2])
    y[i0, i1, i2] = relu(acc)
}}""",
}
