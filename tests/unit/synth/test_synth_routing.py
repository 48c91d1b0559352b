import numpy as np
import pytest

from pintpot.synth.routing import adaptive_hit_rate, most_used, simulate_routing, static_hit_rate


def test_shape_and_choice() -> None:
    routes = simulate_routing(24, 5, 3, 40, n_prompts=2, seed=7)
    assert routes.shape == (40, 3, 5)
    assert routes.dtype == np.int32
    assert routes.min() >= 0
    assert routes.max() < 24
    assert all(len(set(used)) == 5 for token in routes for used in token)


def test_same_seed_same_routes() -> None:
    first = simulate_routing(16, 4, 2, 30, seed=3)
    assert np.array_equal(first, simulate_routing(16, 4, 2, 30, seed=3))
    assert not np.array_equal(first, simulate_routing(16, 4, 2, 30, seed=4))


@pytest.mark.parametrize("n_expert", [128, 256])
def test_published_hit_rates(n_expert: int) -> None:
    """40% of the experts resident: 61-72% of selections with a profile taken on other prompts, 86-92%
    with a recency/frequency policy."""
    routes = simulate_routing(n_expert, 8, 2, 2400, n_prompts=12, seed=1)
    n_slots = round(0.4 * n_expert)
    profile, live = routes[:1200], routes[1200:]
    assert 0.61 <= static_hit_rate(live, most_used(profile, n_expert, n_slots)) <= 0.72
    assert 0.86 <= adaptive_hit_rate(live, n_expert, n_slots) <= 0.92


def test_topics_differ() -> None:
    """Each prompt has a hot set of its own: a profile of one serves another less well than itself."""
    routes = simulate_routing(128, 8, 1, 800, n_prompts=2, seed=5)
    own = most_used(routes[:400], 128, 51)
    assert static_hit_rate(routes[:400], own) - static_hit_rate(routes[400:], own) > 0.08
