import json
import subprocess
import sys


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, json, jaxclf; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"tensorflow_datasets", "matplotlib", "sklearn", "flax", "optax", "rich", "tyro"}
    assert not heavy & set(json.loads(output.stdout))
