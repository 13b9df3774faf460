"""The same clients outside the fence: CLIENT STORY TARGET, where TARGET is JSON."""

import importlib
import json
import sys

client = importlib.import_module(sys.argv[1])
print(json.dumps({"said": client.run(sys.argv[2], json.loads(sys.argv[3]))}))
