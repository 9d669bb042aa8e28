#!/usr/bin/python3
"""tests/e2e/workers.py with more inputs: every format under both policies, ten times, or as often as PORTAGE_TRIALS says."""

import os
import runpy

os.environ.setdefault('PORTAGE_TRIALS', '10')
runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e', 'workers.py'), run_name='__main__')
