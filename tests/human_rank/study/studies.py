"""Studies that need no pictures, for what does not look at them."""

from __future__ import annotations

from stackgan_dist.human_rank.study.folder import Method, Question, Study


def make_study(methods: int = 3, sentences: int = 10, checks: int = 0, per_rater: int = 10, seed: int = 0) -> Study:
    """`sentences` questions and `checks` attention checks for `methods` methods."""
    return Study(
        data="cub",
        captions="data/cub/test/304",
        captions_digest="0" * 64,
        seed=seed,
        images=5,
        questions_per_rater=per_rater,
        methods=tuple(Method(f"method {i}", f"runs/{i}/checkpoints/step-1", 1, "ema", 64) for i in range(methods)),
        questions=tuple(
            Question(f"sentence {i}", f"class {i % 4}", check=i >= sentences) for i in range(sentences + checks)
        ),
    )
