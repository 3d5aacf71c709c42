"""Trains a classifier of handwritten digits with the hyper-parameters of its task.

The task comes as JSON on standard input, the reward leaves as the last line of
standard output, and the steps leave as OpenTelemetry spans. The spans find their
rollout by the OTEL_* variables in the environment: nothing here knows of aglq
but the names of two more variables, and without them the program still runs:

    echo '{"hidden": 64, "learning_rate": 0.005}' | python agent.py
"""

import json
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one trial, one core: workers run side by side
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

DEFAULTS = {
    "hidden": 32,  # units of the hidden layer
    "activation": "relu",
    "learning_rate": 0.001,
    "batch_size": 64,
    "alpha": 0.0001,  # weight decay
    "shift": 0.0,  # the share of images that an epoch moves by a pixel
}
SHORTEST, LONGEST = 15, 40  # epochs of a trial in the first round and in the last


def search_distribution():
    """The newest search distribution among the resources, {} when there is none."""
    path = os.environ.get("AGL_RESOURCES_FILE")
    if not path or not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        resources = json.load(file) or {}
    resources = resources.get("resources", resources) or {}
    template = resources.get("distribution", {}).get("template")
    return json.loads(template) if template else {}


def check(params, distribution):
    """Refuses parameters that the search cannot have drawn."""
    unknown = sorted(set(params) - set(DEFAULTS))
    if unknown:
        sys.exit(f"the task has parameters this agent does not know: {', '.join(unknown)}")
    for parameter in distribution.get("parameters", []):
        name = parameter["name"]
        if name not in params:
            continue
        if "choices" in parameter and params[name] not in parameter["choices"]:
            sys.exit(f"{name} is {params[name]!r}; the choices are {parameter['choices']}")
        if "low" in parameter and not parameter["low"] <= params[name] <= parameter["high"]:
            sys.exit(f"{name} is {params[name]}; the range is {parameter['low']} to {parameter['high']}")


def epochs(distribution):
    """Short trials while the search is wide, long ones when it has narrowed."""
    rounds = distribution.get("rounds", 1)
    if rounds < 2:
        return LONGEST
    progress = min(distribution.get("round", 0) / (rounds - 1), 1)
    return round(SHORTEST + (LONGEST - SHORTEST) * progress)


def moved(images, share, rng):
    """A copy of the images, a share of them moved by up to one pixel."""
    out = images.reshape(-1, 8, 8).copy()
    for i in np.flatnonzero(rng.random(len(out)) < share):
        out[i] = np.roll(out[i], tuple(rng.integers(-1, 2, 2)), (0, 1))
    return out.reshape(-1, 64)


def train(tracer, params, count):
    """Trains for count epochs, a span each, and returns the validation accuracy."""
    images, digits = load_digits(return_X_y=True)
    images, val_images, digits, val_digits = train_test_split(
        images / 16, digits, test_size=0.25, random_state=0, stratify=digits
    )
    rng = np.random.default_rng(0)
    model = MLPClassifier(
        hidden_layer_sizes=(params["hidden"],),
        activation=params["activation"],
        learning_rate_init=params["learning_rate"],
        batch_size=params["batch_size"],
        alpha=params["alpha"],
        random_state=0,
    )
    accuracy = 0.0
    for epoch in range(count):
        with tracer.start_as_current_span("epoch") as span:
            model.partial_fit(moved(images, params["shift"], rng), digits, classes=range(10))
            accuracy = float(model.score(val_images, val_digits))
            span.set_attributes({"epoch": epoch, "loss": float(model.loss_), "accuracy": accuracy})
    return accuracy


def main():
    params = json.load(sys.stdin)
    if not isinstance(params, dict):
        sys.exit("the task is no JSON object of hyper-parameters")
    distribution = search_distribution()
    check(params, distribution)
    params = DEFAULTS | params

    provider = TracerProvider()
    if os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("digits")
    try:
        with tracer.start_as_current_span("train", attributes=params):
            accuracy = train(tracer, params, epochs(distribution))
    finally:
        provider.shutdown()  # sends what is left
    print(json.dumps({"reward": accuracy}))


if __name__ == "__main__":
    main()
