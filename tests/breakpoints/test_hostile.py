"""Texts that try to reach, run or stall something: each is refused, as a mistake like any other, at once."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from nbdebug.breakpoints.condition import ConditionError, Reading, compile_condition
from tests.breakpoints import fuzz
from tests.breakpoints.cases import NAMES, compiled

REACHING = r"""
loss.__class__ > 1
loss.__class__.__mro__[1].__subclasses__() > 1
().__class__.__bases__[0].__subclasses__() == 1
(1).__class__ == loss
1 .__class__ == loss
1..real > loss
loss.real > 1
loss.__init__.__globals__['__builtins__'] > 1
''.__class__.__mro__ > loss
"".join(["a"]) > loss
[].__class__ > loss
{}.__class__ > loss
{1: 2}[1] > loss
{loss} > {1}
[loss for loss in [1]] > 0
(loss for loss in [1]) > 0
{x: x for x in [1]} > loss
[loss][0] > 1
(loss,)[0] > 1
__import__('os').system('true') > 1
__import__("os") > loss
import os
from os import system
import os; loss > 1
loss > 1; import os
eval('1') > loss
eval("loss > 1")
exec('import os') > loss
exec("1")
compile('1', '', 'eval') > loss
open('/etc/passwd') > loss
open(0) > loss
print(loss) > 1
input() > loss
getattr(loss, 'real') > 1
getattr(loss, "__class__") > 1
setattr(loss, 'a', 1) > 1
delattr(loss, 'a') > 1
hasattr(loss, 'a') > 1
vars() > loss
dir() > loss
globals() > loss
globals()['x'] > loss
locals() > loss
type(loss) > 1
type('X', (), {}) > loss
object() > loss
super() > loss
id(loss) > 1
hash(loss) > 1
help() > loss
exit() > loss
quit() > loss
breakpoint() > loss
memoryview(loss) > 1
bytes(10) > loss
bytearray(10) > loss
range(10) > loss
list(loss) > 1
str(loss) > 1
int(loss) > 1
float('nan') > loss
complex(loss) > 1
pow(9, 9) > loss
pow(loss, 9, 9) > 1
sorted(loss) > 1
map(abs, loss) > 1
filter(abs, loss) > 1
any(loss > 1)
all(loss > 1)
callable(loss)
iter(loss) > 1
next(loss) > 1
isinstance(loss, float)
staticmethod(loss) > 1
__builtins__ > loss
__builtins__["eval"] > loss
__name__ > loss
__file__ > loss
__debug__ > loss
__class__ > loss
_ > loss
__ > loss
self > loss
nbdebug > loss
numpy.array > loss
np.load('x') > loss
os.system('true') > loss
sys.exit() > loss
torch.load('x') > loss
lambda: loss
(lambda: loss)() > 1
(lambda x: x)(loss) > 1
lambda loss: loss > 1
(x := loss) > 1
x := loss > 1
loss := 1
loss = 1
loss += 1
loss -= 1
loss *= 2
loss /= 2
loss **= 2
loss //= 2
loss %= 2
loss @ lr > 1
loss >> 1 > 1
loss << 1 > 1
loss >>= 1
loss & 1
loss | 1
loss ^ 1
~loss > 1
!loss
!loss > 1
! (loss > 1)
!ls
%time loss
%%bash
?loss
loss?
$loss > 1
@loss > 1
`loss` > 1
#loss > 1
loss > 1 # and more
loss > 1 \
\
\x6c\x6f\x73\x73 > 1
\u006coss > 1
loss && lr
loss > 1 && lr > 1
loss > 1 || lr > 1
loss === 1
loss !== 1
loss <> 1
loss => 1
loss =< 1
loss -> 1
loss > 1 ? 2 : 3
loss > 1 if True else False
if loss > 1: pass
while True: pass
for loss in lr: pass
def f(): pass
class X: pass
return loss
yield loss
(yield loss) > 1
await loss
async loss
del loss
raise loss
assert loss > 1
global loss
nonlocal loss
pass
try: loss
with loss: pass
loss is None
loss is not None
loss in (1, 2)
loss not in (1, 2)
None
None > loss
Ellipsis > loss
... > loss
NotImplemented > loss
*loss > 1
**loss > 1
max(*loss) > 1
max(**loss) > 1
max(loss, key=abs) > 1
max(loss, default=1) > 1
mean(x=loss, n=5) > 1
previous(loss, k=1) > 1
f"{loss}" > 1
f'{__import__("os")}' > loss
F"{loss}" > 1
r"loss" > 1
b"loss" > 1
rb"loss" > 1
u"loss" > 1
"loss" > 1
'loss' > 1
"loss > 1"
'''loss''' > 1
"a" "b" > loss
"a" * 10 > loss
"a" + loss > 1
"%s" % loss > 1
"{0.__class__}".format(loss) > 1
'{}'.format(loss) > 1
'%d' > loss
"inf" > loss
"nan" != loss
"True" == True
'1' < loss
isnan("nan") or loss > 1
abs("loss") > 1
max("loss", 5) > 1
loss["real"] > 1
loss[0] > 1
loss[:] > 1
loss[1:2] > 1
loss[...] > 1
loss["a"]["b"] > 1
update_ratio[0] > 1
update_ratio[-1] > 1
update_ratio[True] > 1
update_ratio[None] > 1
update_ratio[:] > 1
update_ratio[...] > 1
update_ratio[fc1] > 1
update_ratio[loss] > 1
update_ratio["fc1"][0] > 1
update_ratio["fc1"]["fc1"] > 1
update_ratio["fc1", "fc2"] > 1
update_ratio["fc1" "fc2"] > 1
update_ratio["fc" + "1"] > 1
update_ratio[f"fc1"] > 1
update_ratio[r"fc1"] > 1
update_ratio[("fc1")] > 1
update_ratio[update_ratio["fc1"]] > 1
update_ratio["__class__"] > 1
update_ratio["../../etc/passwd"] > 1
update_ratio["fc1\"] > 1
update_ratio["\x66c1"] > 1
update_ratio["fc1'] > 1
update_ratio['fc1"] > 1
update_ratio["fc1] > 1
update_ratio["*"] > 1
update_ratio[""] > 1
update_ratio["<script>alert(1)</script>"] > 1
update_ratio["%s"] > 1
update_ratio["{0}"] > 1
update_ratio["FC1"] > 1
update_ratio["fc1 "] > 1
update_ratio[] > 1
update_ratio() > 1
update_ratio["fc1"]() > 1
update_ratio["fc1"]("fc1") > 1
abs(abs)(loss) > 1
abs()() > loss
abs[0] > loss
abs["fc1"] > 1
max["fc1"] > 1
(abs)(loss) > 1
(loss)(1) > 1
(loss)["fc1"] > 1
(update_ratio)["fc1"] > 1
1(loss) > 1
1[loss] > 1
True() or loss > 1
inf() > loss
inf["fc1"] > loss
loss loss
loss > 1 loss > 1
loss > 1, lr > 1
(loss, lr) > (1, 1)
() > loss
(,) > loss
(loss > 1
loss > 1)
((loss > 1)
)loss > 1(
]loss[
loss > [1]
loss > (1
max(loss, > 1
max(, loss) > 1
max(loss,, 5) > 1
max(loss 5) > 1
max(loss; 5) > 1
max loss > 1
not
and
or
loss and
and loss
loss > 1 and
or loss > 1
loss not > 1
loss > not
not not
loss >
> loss
loss > > 1
loss < > 1
loss ** ** 2 > 1
loss * / 2 > 1
- > loss
loss -
.
..
,
:
0
-1
loss
inf
nan
""
''
"
'
0x10 > loss
0b1 > loss
0o7 > loss
1_000 > loss
1j > loss
1e > loss
1e+ > loss
1.2.3 > loss
1..2 > loss
.e5 > loss
1L > loss
1if loss else 2
1or loss > 1
01e5x > loss
1e5e5 > loss
0xdeadbeef.__class__ > loss
median(loss, 1e9) > 1
median(loss, 10001) > 1
median(loss, 999999999999999999999) > 1
median(loss, -1) > 1
median(loss, 0) > 1
median(loss, 2.5) > 1
median(loss, inf) > 1
median(loss, nan) > 1
median(loss, True) > 1
median(loss, loss) > 1
median(loss, 5+5) > 1
median(loss, (loss > 1)) > 1
median(median(loss, 5), 5) > 1
median(loss > 1, 5) > 1
previous(previous(loss)) > 1
previous(loss, 10**9) > 1
previous(loss, -5) > 1
count(loss > 1, 5) > 1
9**9**9**9
9**9**9**9 > 1
9**9**9**9 == 9**9**9**9
(9**9)**(9**9)**(9**9) > 0
1e999 > 0
1/0
1/0 > 0
0**-1 > 0
(-1)**0.5 == 1
loss == loss
loss != loss
not loss >= loss
loss == nan
loss > 1 or True
loss > 1 and False
True
not True
""".strip("\n").split("\n")

ODD = [
    "", " ", "\n", "\t", "\r\n", "\x00", "loss\x00 > 1", "loss > 1\x00", "\x00loss > 1", "lo\x00ss > 1",
    "\x1b[31mloss > 1", "loss\x0b > 1", "loss\x0c> 1", "loss\x85 > 1", "loss\u2028> 1", "loss\u2029> 1", "loss\xa0> 1",
    "loss\u3000> 1", "\ufeffloss > 1", "loss\u200b > 1", "lo\u00adss > 1", "\u202eloss > 1", "loss > 1\u202e",
    "\u2066loss > 1", "\ud800", "loss > \ud800", "\udfff > loss", "\ud83d\ude00 > loss", 'update_ratio["\ud800"] > 1',
    "\udcff\udcfe > 1", "loss > ١", "loss > １", "loss > ²", "loss > ½", "loss > Ⅷ", "loss > 1２", "loss > 1.５",
    "loss > 𝟙", "loss > ੩", "ｌｏｓｓ > 1", "𝐥𝐨𝐬𝐬 > 1", "lоss > 1", "loſs > 1", "ℓoss > 1", "loss\u0301 > 1",
    "__𝐢mport__('os') > 1", "ﬁ > 1", "loss ＞ 1", "loss ≥ 1", "loss ≠ 1", "loss − 1 > 1", "loss × 2 > 1", "loss > ∞",
    "¬ loss > 1", "loss > 1 ∧ lr > 1", "max（loss, 5） > 1", "loss > “1”", "update_ratio[‘fc1’] > 1",
    "update_ratio[“fc1”] > 1", "update_ratio['fc1\n'] > 1", "update_ratio['fc1\x00'] > 1",
    "update_ratio['gro\u0308ße'] > 1", "update_ratio['ｆｃ１'] > 1", "loss > 1\N{GREEK QUESTION MARK}",
]  # fmt: skip

LARGE = [
    "(" * 50 + "loss" + ")" * 50 + " > 1", "(" * 400 + ")" * 400, "(" * 1000, ")" * 1000, "(" * 100_000, "[" * 1000,
    "update_ratio" + "[" * 900, "-" * 900 + "loss > 1", "+" * 900 + "loss > 1", "- " * 400 + "loss > 1",
    "not " * 200 + "loss > 1", "not" * 300, "abs(" * 200 + "loss" + ")" * 200 + " > 1",
    "max(loss," * 100 + "1" + ")" * 100 + " > 1", "9**" * 300 + "9 > loss", "loss**" * 150 + "2 > 1",
    "loss" + "+loss" * 180 + " > 1", "1" + "+1" * 400 + " > loss", "loss" + ">1" * 400, "loss>1" + " or loss>1" * 90,
    "loss>1" + " and loss>1" * 80, "True" + " or True" * 120, "(loss>1)==" * 90 + "True",
    "max(" + "lr," * 200 + "1) > 2", "loss > " + "9" * 100_000, "9" * 994 + ".x > loss", "loss > 1e" + "9" * 900 + "x",
    "median(loss, " + "9" * 900 + ") > 1", "a" * 1000, "a" * 100_000, "_" * 1000 + " > 1", "a " * 500, "loss " * 200,
    " " * 1000, " " * 100_000, "\n" * 100_000 + "loss > 1", "loss > 1" + " " * 1000, "'" * 1000,
    "'" * 999, '"' * 100_000, "'a' " * 200, 'update_ratio["' + "a" * 900 + '"] > 1', 'update_ratio["' + "a" * 900,
    "\x00" * 1000, "\ud800" * 1000, "𝐥" * 1000, "." * 1000, "1." * 500, "1e" * 500, "," * 1000, "loss," * 200,
    "%s" * 500, "%n" * 500, "{}" * 500, "\\" * 1000, "&" * 1000, "=" * 1000, "==" * 499, "*" * 1000, "<" * 1000,
    "loss.a" + ".a" * 400, "x" * 10**7,
]  # fmt: skip

HOSTILE = [*REACHING, *ODD, *LARGE]


def test_there_are_many() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) > 400


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:30]))
def test_a_hostile_text_is_refused_at_once(text: str) -> None:
    start = time.thread_time()
    with pytest.raises(ConditionError) as caught:
        compiled(text)
    assert time.thread_time() - start < 0.1
    assert 1 <= caught.value.column <= len(text) + 1
    message = str(caught.value)
    assert len(message) < 1500 and message.encode() and len(message.splitlines()) == 4
    assert all(line.isprintable() for line in message.splitlines())


@pytest.mark.parametrize("text", [None, 5, b"loss > 1", ["loss"], lambda: True, compiled, object()])
def test_what_is_no_text_is_refused(text: object) -> None:
    with pytest.raises(ConditionError):
        compile_condition(text, NAMES)  # type: ignore[arg-type]


WORST = [
    "+".join(["1"] * 98) + "<loss",
    "loss**(" * 22 + "2" + ")" * 22 + " > 1",
    "(" * 30 + "loss" + "+1)" * 30 + "> 1",
    "-(" * 23 + "loss" + ")" * 23 + " > 1",
    " or ".join([f"loss>{place}" for place in range(49)]),
    "max(loss, 9999)" + "*max(loss, 10000)" * 45 + " > median(loss, 10000)",
    "max(update_ratio)" + "*median(update_ratio)" * 30 + " > 1",
]


@pytest.mark.parametrize("text", WORST, ids=lambda text: text[:30])
def test_the_costliest_conditions_cost_little(text: str) -> None:
    values = {Reading("loss"): 1.0, **{Reading("update_ratio", f"layer{place}"): 1.0 for place in range(1000)}}
    past = {Reading("loss"): [1.0] * 10_000}
    compiled(text).judge(values, past)
    start = time.thread_time()
    compiled(text).judge(values, past)
    assert time.thread_time() - start < 0.1


@pytest.mark.parametrize("text", [*WORST, *LARGE[:24]], ids=lambda text: text[:30])
def test_no_text_needs_much_of_the_stack(text: str) -> None:
    raised: list[BaseException] = []

    def judge() -> None:
        try:
            compiled(text).judge({Reading("loss"): 1.0}, {})
        except ConditionError:
            pass
        except BaseException as error:
            raised.append(error)

    before = sys.getrecursionlimit()
    compiled("loss > 1").judge({Reading("loss"): 1.0}, {})
    thread = threading.Thread(target=judge)
    sys.setrecursionlimit(500)
    try:
        thread.start()
        thread.join()
    finally:
        sys.setrecursionlimit(before)
    assert raised == []


def test_a_name_is_not_sought_long_among_thousands_of_layers() -> None:
    layers = [f"model.layers.{block}.attention.{part}_proj.weight" for block in range(1000) for part in "qkvo"]
    start = time.thread_time()
    with pytest.raises(ConditionError, match="Did you mean model"):
        compile_condition('update_ratio["model.layers.0.attention.x_proj.weight"] > 1', NAMES, layers, ["update_ratio"])
    assert time.thread_time() - start < 2


def test_a_short_fuzzing_finds_nothing() -> None:
    found = fuzz.fuzz(seconds=2)
    assert found.faults == {}
    assert found.inputs > 100 and found.conditions > 5 and found.edges > 200
