"""A program whose three layers are the same region, attention by blocks of rows: the rows are the test's."""

LAYERS = """
T, d = 192, 24

@tile({rows})
def attend(q, k, v):
    i, j = arange(T)[:, None], arange(T)[None, :]
    return softmax(where(j <= i, q @ k.T, -inf)) @ v

def f(X: f32[T, d] = normal(0, 1), W: f32[3, d, d] = normal(0, 0.1), *, Y: f32[T, d] = normal(0, 1)):
    for l in range(3):
        X = X + attend(X @ W[0], X @ W[1], X @ W[2])
    return sum(Y * X)
"""
