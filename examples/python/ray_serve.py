"""The runtime that keeps nothing as a deployment of Ray Serve: several replicas behind one address.

    pip install 'invad[serve,onnx]' 'ray[serve]'
    serve run ray_serve:app bundle=/srv/bundle replicas=2
    curl http://127.0.0.1:8000/v2/models/bundle

It speaks the Open Inference Protocol, as `invad serve BUNDLE --stateless` does.
"""

from pathlib import Path

from ray import serve
from ray.serve import Application

from invad.serve.stateless import Runtime, application, opened


def app(arguments: dict[str, str]) -> Application:
    """bundle: its folder, on every machine. replicas: processes, each with the model in it. name: what the
    model is asked for by, by default the folder's."""
    folder, name = Path(arguments["bundle"]).resolve(), arguments.get("name")

    def made_in_a_replica():
        return application(Runtime(opened(folder, name)))

    deployment = serve.deployment(
        serve.ingress(made_in_a_replica)(),
        name="invad",
        num_replicas=int(arguments.get("replicas", "1")),
        # More are told to come again by the runtime, which holds 64.
        max_ongoing_requests=64,
    )
    return deployment.bind()
