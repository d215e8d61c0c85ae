"""The examples in the engine's docstrings do what they show."""

from __future__ import annotations

import doctest

from convlens.worker import engine
from convlens.worker.engine.explain import explain


def test_the_examples_run():
    examples = f"{engine.__doc__}\n{explain.__doc__}"
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    runner.run(parser.get_doctest(examples, {}, "engine", None, None))
    assert runner.summarize(verbose=False).attempted > 10
    assert runner.summarize(verbose=False).failed == 0
