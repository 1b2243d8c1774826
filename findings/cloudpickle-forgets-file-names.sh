#!/usr/bin/env bash
# Guess:     a function that cloudpickle sends to a worker keeps the name of its file, so that a traceback there says
#            "train.py, line 2" and shows the line.
# Behaviour: since the patch release 3.1.3 every function that is sent by value comes back with the file name
#            "<dynamic-code>": a traceback names no file and shows no source. With 3.1.2 and before it named the file.
#            Pickles of the same function are now the same bytes wherever its file lies, which was the purpose.
# Versions:  cloudpickle 3.1.3 and 3.1.2, Python 3.11; seen 2026-11-28.
# Matters:   fleets of trainings send the user's functions to workers in this way; when one of hundreds fails, the place
#            is what is wanted. A pickler that sends the name beside the code (a reducer for code objects) gives it back.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/train.py" <<'P'
def train(subset):
    return 1/len(subset)
P
cat > "$folder/send.py" <<'P'
import cloudpickle, sys, traceback, train
cloudpickle.register_pickle_by_value(train)
there = cloudpickle.loads(cloudpickle.dumps(train.train))
try: there([])
except ZeroDivisionError as e: frame = traceback.extract_tb(e.__traceback__)[-1]
print('cloudpickle', cloudpickle.__version__, '->', frame.filename.split('/')[-1], 'line', frame.lineno, repr(frame.line))
sys.exit(frame.filename.split('/')[-1] != sys.argv[1])
P
cd "$folder"
for case in "3.1.2 train.py" "3.1.3 <dynamic-code>"; do
  version=${case%% *} expected=${case#* }
  python3 -m venv "$folder/$version"
  if command -v uv >/dev/null; then uv pip install -q --python "$folder/$version/bin/python" "cloudpickle==$version"
  else "$folder/$version/bin/pip" install -q "cloudpickle==$version"; fi
  env -u PYTHONPATH "$folder/$version/bin/python" send.py "$expected"
done
