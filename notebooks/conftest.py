def pytest_collectstart(collector):
    """Leave stderr out of what nbval compares: where TensorFlow's log lines land is chance."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
