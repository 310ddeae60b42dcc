"""What the counts prove, however often one looks: pure functions from numbers to numbers.

Nothing here reads a clock, draws a number, or talks to anybody. What runs on from tick to tick is a frozen state that
becomes plain data and comes back from it, so that every verdict can be worked out again from the counts that were kept.

Three kinds of statement, never to be mixed:

* **evidence** (``two_ring``, ``latency``, ``ratio``, ``budget``, ``calibration``): e-processes, which may decide. Their
  bound holds at every moment at once, whatever traffic, base rate and weights do;
* **display** (``sequences``, ``quantiles``, ``means``): confidence sequences. They suppose that nothing but chance
  moves a ring's rate within an epoch, and are drawn, not acted upon;
* **forecast** (``forecast``): how many more units it will probably take. It promises nothing.
"""
