"""Why a policy trained in a learned simulator is as good, or as bad, as it is: one of four verdicts, from figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Thresholds:
    """All that the verdict depends on beside the figures; explained in docs/diagnose.md.

    Attributes:
        expert_share: share of the expert's measured return from which on a policy is as good as the expert.
        agreement: largest difference between the learned return in the simulator and in the real task at which the
            two agree, as a share of the expert's learned return.
        learned_share: share of the expert's learned return from which on the learner has maximised the reward.
    """

    expert_share: float = 0.95
    agreement: float = 0.10
    learned_share: float = 0.90


@dataclass(frozen=True)
class Figures:
    """Mean returns over episodes, undiscounted.

    Attributes:
        measured: of the last policy in the real task, in its own reward.
        expert: of the expert there.
        simulator_learned: of the last policy in the simulator, in learned reward.
        real_learned: of the same policy's real episodes, in learned reward.
        expert_learned: of the demonstrations, in learned reward.
    """

    measured: float
    expert: float
    simulator_learned: float
    real_learned: float
    expert_learned: float


@dataclass(frozen=True)
class Verdict:
    """``kind`` is ``success``, ``simulator``, ``reward`` or ``learner``; ``reason`` says in words and figures why."""

    kind: str
    reason: str


def judge(figures: Figures, thresholds: Thresholds | None = None) -> Verdict:
    """Name what stands between the last policy and the expert, asking for the first cause first.

    A simulator that is wrong makes everything after it meaningless, and a reward that does not mean the task makes
    the learner's success meaningless: hence the order. All comparisons of learned returns are in units of the
    expert's learned return, so that exactly one verdict holds for any figures.
    """
    limits = thresholds or Thresholds()
    unit = abs(figures.expert_learned)
    gap = figures.simulator_learned - figures.real_learned
    # Returns may be negative, where a share would turn the comparison round
    as_expert = figures.measured >= figures.expert - (1.0 - limits.expert_share) * abs(figures.expert)
    maximised = figures.simulator_learned >= figures.expert_learned - (1.0 - limits.learned_share) * unit
    measured = f"the policy returns {_text(figures.measured)} where the expert returns {_text(figures.expert)}"
    learned = (
        f"in learned reward the simulator promises {_text(figures.simulator_learned)}, "
        f"the real task pays {_text(figures.real_learned)} and the demonstrations earn {_text(figures.expert_learned)}"
    )
    if abs(gap) > limits.agreement * unit:
        tone = "optimistic" if gap > 0 else "pessimistic"
        end = f"Even so, {measured}." if as_expert else f"In the task's own reward {measured}."
        return Verdict("simulator", f"The simulator is {tone} where the policy goes: {learned}. {end}")
    if as_expert:
        return Verdict("success", f"{_capital(measured)}, and simulator and real task agree: {learned}.")
    if maximised:
        return Verdict(
            "reward",
            f"The learned reward does not mean the task: simulator and real task agree and the policy earns what the "
            f"demonstrations earn, yet {measured}; {learned}.",
        )
    return Verdict(
        "learner",
        f"The learner did not maximise the learned reward: simulator and real task agree, but {learned}. "
        f"In the task's own reward {measured}.",
    )


def as_json(figures: Figures, verdict: Verdict, thresholds: Thresholds | None = None) -> dict[str, object]:
    """Verdict, the figures it rests on and the thresholds, as plain data."""
    return {**asdict(verdict), "figures": asdict(figures), "thresholds": asdict(thresholds or Thresholds())}


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
