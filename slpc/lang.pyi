"""The names of the language, for editors. Written by `python -m slpc.language`; a test keeps it fresh."""

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

class Value:
    """A value of a program."""

    shape: tuple[int, ...]
    ndim: int
    size: int
    dtype: Any
    T: Any
    mT: Any
    def __class_getitem__(cls, shape: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any: ...
    def __add__(self, other: Any) -> Any: ...
    def __sub__(self, other: Any) -> Any: ...
    def __mul__(self, other: Any) -> Any: ...
    def __truediv__(self, other: Any) -> Any: ...
    def __floordiv__(self, other: Any) -> Any: ...
    def __mod__(self, other: Any) -> Any: ...
    def __pow__(self, other: Any) -> Any: ...
    def __matmul__(self, other: Any) -> Any: ...
    def __and__(self, other: Any) -> Any: ...
    def __or__(self, other: Any) -> Any: ...
    def __radd__(self, other: Any) -> Any: ...
    def __rsub__(self, other: Any) -> Any: ...
    def __rmul__(self, other: Any) -> Any: ...
    def __rtruediv__(self, other: Any) -> Any: ...
    def __rfloordiv__(self, other: Any) -> Any: ...
    def __rmod__(self, other: Any) -> Any: ...
    def __rpow__(self, other: Any) -> Any: ...
    def __rmatmul__(self, other: Any) -> Any: ...
    def __rand__(self, other: Any) -> Any: ...
    def __ror__(self, other: Any) -> Any: ...
    def __lt__(self, other: Any) -> Any: ...
    def __le__(self, other: Any) -> Any: ...
    def __gt__(self, other: Any) -> Any: ...
    def __ge__(self, other: Any) -> Any: ...
    def __neg__(self) -> Any: ...
    def __pos__(self) -> Any: ...
    def __invert__(self) -> Any: ...

class f16(Value): ...
class bf16(Value): ...
class f32(Value): ...
class f64(Value): ...
class i32(Value): ...
class i64(Value): ...

pi: float
e: float
inf: float
nan: float
s_: Any

def normal(first: Any, second: Any) -> Any: ...
def uniform(first: Any, second: Any) -> Any: ...
def integers(first: Any, second: Any) -> Any: ...
def scheduled(function: _Function) -> _Function: ...
def donated(**outputs: str) -> Callable[[_Function], _Function]: ...
def tile(**sizes: int) -> Callable[[_Function], _Function]: ...

def add(x: Any, y: Any) -> Any:
    """x + y"""
def subtract(x: Any, y: Any) -> Any:
    """x - y"""
def multiply(x: Any, y: Any) -> Any:
    """x * y"""
def divide(x: Any, y: Any) -> Any:
    """x / y"""
def floor_divide(x: Any, y: Any) -> Any:
    """floor(x / y)"""
def mod(x: Any, y: Any) -> Any:
    """x - y * floor(x / y); the sign of y"""
def negative(x: Any) -> Any:
    """-x"""
def sign(x: Any) -> Any:
    """-1, 0 or 1"""
def maximum(x: Any, y: Any) -> Any:
    """the larger, element by element; NaN where either is"""
def minimum(x: Any, y: Any) -> Any:
    """the smaller, element by element; NaN where either is"""
def floor(x: Any) -> Any:
    """the largest integer that is not above x"""
def ceil(x: Any) -> Any:
    """the smallest integer that is not below x"""
def exp(x: Any) -> Any:
    """e ** x"""
def exp2(x: Any) -> Any:
    """2 ** x"""
def expm1(x: Any) -> Any:
    """exp(x) - 1, accurate near 0"""
def log(x: Any) -> Any:
    """natural logarithm"""
def log2(x: Any) -> Any:
    """logarithm to base 2"""
def log10(x: Any) -> Any:
    """logarithm to base 10"""
def log1p(x: Any) -> Any:
    """log(1 + x), accurate near 0"""
def sqrt(x: Any) -> Any:
    """square root"""
def cbrt(x: Any) -> Any:
    """cube root"""
def sin(x: Any) -> Any:
    """sine"""
def cos(x: Any) -> Any:
    """cosine"""
def tan(x: Any) -> Any:
    """tangent"""
def asin(x: Any) -> Any:
    """inverse sine"""
def acos(x: Any) -> Any:
    """inverse cosine"""
def atan(x: Any) -> Any:
    """inverse tangent"""
def atan2(x: Any, y: Any) -> Any:
    """angle of the point (y, x)"""
def hypot(x: Any, y: Any) -> Any:
    """sqrt(x**2 + y**2)"""
def sinh(x: Any) -> Any:
    """hyperbolic sine"""
def cosh(x: Any) -> Any:
    """hyperbolic cosine"""
def tanh(x: Any) -> Any:
    """hyperbolic tangent"""
def asinh(x: Any) -> Any:
    """inverse hyperbolic sine"""
def acosh(x: Any) -> Any:
    """inverse hyperbolic cosine"""
def atanh(x: Any) -> Any:
    """inverse hyperbolic tangent"""
def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), the logistic function"""
def erf(x: Any) -> Any:
    """error function"""
def erfc(x: Any) -> Any:
    """1 - erf(x), accurate for large x"""
def lgamma(x: Any) -> Any:
    """log of the absolute value of the gamma function"""
def polygamma(n: Any, x: Any) -> Any:
    """derivative n + 1 of lgamma at x; polygamma(0, x) is the digamma function"""
def less(x: Any, y: Any) -> Any:
    """x < y"""
def less_equal(x: Any, y: Any) -> Any:
    """x <= y"""
def greater(x: Any, y: Any) -> Any:
    """x > y"""
def greater_equal(x: Any, y: Any) -> Any:
    """x >= y"""
def equal(x: Any, y: Any) -> Any:
    """x == y"""
def not_equal(x: Any, y: Any) -> Any:
    """x != y"""
def logical_and(x: Any, y: Any) -> Any:
    """x and y"""
def logical_or(x: Any, y: Any) -> Any:
    """x or y"""
def logical_not(x: Any) -> Any:
    """not x"""
def where(c: Any, x: Any, y: Any) -> Any:
    """x where c holds, y elsewhere"""
def astype(x: Any, dtype: Any) -> Any:
    """conversion to another dtype"""
def broadcast_to(x: Any, shape: Any) -> Any:
    """x repeated to a larger shape"""
def reshape(x: Any, *shape: Any) -> Any:
    """the elements of x, row by row, in another shape"""
def permute_dims(x: Any, axes: Any) -> Any:
    """axes in another order; x.T, x.mT"""
def stop_gradient(x: Any) -> Any:
    """x, as a constant to differentiation"""
def expand_dims(x: Any, axis: Any=0) -> Any:
    """a new axis of length 1"""
def squeeze(x: Any, axis: Any) -> Any:
    """axes of length 1 taken out"""
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    """one axis moved to another place"""
def flip(x: Any, axis: Any=None) -> Any:
    """the order of elements reversed along axes"""
def cumsum(x: Any, axis: Any=None) -> Any:
    """running sums along an axis"""
def matmul(a: Any, b: Any) -> Any:
    """matrix product, batched over leading axes"""
def copy(x: Any) -> Any:
    """x in memory of its own, row by row"""
def place(*pieces: Any, at: Any, shape: Any) -> Any:
    """zeros of a shape with each operand added at its constant index: concat, stack, pad; the transpose of slices"""
def scatter_add(updates: Any, *indices: Any, shape: Any) -> Any:
    """zeros of a shape with x added at [i, j]: the transpose of gather"""
def arange(start: Any, stop: Any=None, step: Any=1, dtype: Any=...) -> Any:
    """start, start + step, ... below stop"""
def concat(items: Any, axis: Any=0) -> Any:
    """arrays end to end along an axis"""
def stack(items: Any, axis: Any=0) -> Any:
    """arrays along a new axis"""
def take(x: Any, indices: Any, axis: Any=0) -> Any:
    """x at an array of indices along one axis"""
def take_along_axis(x: Any, indices: Any, axis: Any=-1) -> Any:
    """x at one index for each place of an axis"""
def all_reduce(x: Any, processes: Any) -> Any:
    """begins the sum of x over so many processes; only `wait` may read it"""
def wait(x: Any) -> Any:
    """what an all_reduce sums, once it is there"""
def zeros(shape: Any, dtype: Any=...) -> Any:
    """an array of zeros"""
def ones(shape: Any, dtype: Any=...) -> Any:
    """an array of ones"""
def full(shape: Any, number: Any, dtype: Any=None) -> Any:
    """an array of one number"""
def zeros_like(x: Any, dtype: Any=None) -> Any:
    """zeros of x's shape and dtype"""
def ones_like(x: Any, dtype: Any=None) -> Any:
    """ones of x's shape and dtype"""
def eye(n: Any, m: Any=None, k: Any=0, dtype: Any=...) -> Any:
    """ones on the k-th diagonal, zeros elsewhere"""
def tril(x: Any, k: Any=0) -> Any:
    """x on and below the k-th diagonal, zeros above"""
def triu(x: Any, k: Any=0) -> Any:
    """x on and above the k-th diagonal, zeros below"""
def wide(x: Any) -> Any:
    """x in f32 where it has 16 bits, else x: what sums, losses and statistics are computed in"""
def narrow(y: Any, x: Any) -> Any:
    """y, computed of wide(x), in the dtype of x"""
def square(x: Any) -> Any:
    """x * x"""
def reciprocal(x: Any) -> Any:
    """1 / x"""
def clip(x: Any, low: Any, high: Any) -> Any:
    """minimum(maximum(x, low), high)"""
def isnan(x: Any) -> Any:
    """x != x"""
def isfinite(x: Any) -> Any:
    """x - x == 0"""
def outer(x: Any, y: Any) -> Any:
    """x[:, None] * y[None, :]"""
def mean(x: Any, axis: Any=None, keepdims: Any=False) -> Any:
    """the mean over axes"""
def var(x: Any, axis: Any=None, keepdims: Any=False) -> Any:
    """the variance over axes: the mean square of what differs from the mean"""
def std(x: Any, axis: Any=None, keepdims: Any=False) -> Any:
    """the standard deviation over axes"""
def prod(x: Any, axis: Any=None, keepdims: Any=False) -> Any:
    """the product over axes"""
def relu(x: Any) -> Any:
    """where(x <= 0, 0, x)"""
def softplus(x: Any) -> Any:
    """where(x >= 0, x, 0) + log1p(exp(where(x >= 0, -x, x)))"""
def silu(x: Any) -> Any:
    """x * sigmoid(x)"""
def gelu(x: Any) -> Any:
    """0.5 * x * (1 + erf(x * 0.7071067811865476))"""
def logsumexp(x: Any, axis: Any=None, keepdims: Any=False) -> Any:
    """log(sum(exp(x))) over an axis, without overflow"""
def softmax(x: Any, axis: Any=-1) -> Any:
    """exp(x) / sum(exp(x)) along an axis, without overflow"""
def log_softmax(x: Any, axis: Any=-1) -> Any:
    """x - logsumexp(x) along an axis: the logarithm of softmax, without its underflow"""
def layernorm(x: Any, axis: Any=-1, epsilon: Any=1e-05) -> Any:
    """x less its mean, over its standard deviation, along an axis"""
