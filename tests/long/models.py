#!/usr/bin/python3
"""The models of tests/e2e for as long as it takes: random_model.py with 20,000 scenarios, and rollback_model.py with 50,000
steps, in series whose seeds are printed.

PORTAGE_SEED repeats all of it; PORTAGE_SCENARIOS and PORTAGE_STEPS set other lengths."""

import os
import random
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from portage_server import check, finish  # noqa: E402

SEED = int(os.environ.get('PORTAGE_SEED') or random.SystemRandom().randrange(1 << 32))
SCENARIOS = int(os.environ.get('PORTAGE_SCENARIOS') or 20000)
STEPS = int(os.environ.get('PORTAGE_STEPS') or 50000)
SERIES = {'random_model.py': ('PORTAGE_SCENARIOS', SCENARIOS, 1000), 'rollback_model.py': ('PORTAGE_STEPS', STEPS, 2500)}


def main():
    print(f'seed {SEED}', flush=True)
    for script, (setting, length, portion) in SERIES.items():
        for begun in range(0, length, portion):
            seed = random.Random(f'{SEED}/{script}/{begun}').randrange(1 << 32)
            number = min(portion, length - begun)
            done = subprocess.run([os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e', script)], check=False,
                                  env={**os.environ, 'PORTAGE_SEED': str(seed), setting: str(number)}, capture_output=True, text=True)
            for line in re.findall(r'^figures .*', done.stdout, re.M):
                print(f'{script}: {line}', flush=True)
            check(f'{script}, {number} of {length}, PORTAGE_SEED={seed} {setting}={number}', done.returncode == 0,
                  done.stdout[-20000:] + done.stderr[-2000:])
    finish()


if __name__ == '__main__':
    main()
