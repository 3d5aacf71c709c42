"""A store nobody has used yet. The name sorts first, so this runs first."""


async def test_nothing_is_there(store):
    assert await store.get_latest_resources() is None
    assert list(await store.query_rollouts()) == []
    assert list(await store.query_workers()) == []
    assert list(await store.query_resources()) == []
    numbers = await store.statistics()
    for kind in ("rollouts", "attempts", "spans", "resources", "workers"):
        assert numbers[f"total_{kind}"] == 0, kind


async def test_a_rollout_before_any_resources_has_none(store):
    assert (await store.enqueue_rollout(input=1)).resources_id is None


async def test_the_queue_is_empty_however_often_asked(store):
    assert [await store.dequeue_rollout() for _ in range(3)] == [None, None, None]
