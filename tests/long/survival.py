#!/usr/bin/python3
"""tests/e2e/survival.py with 500 kills, or as many as PORTAGE_KILLS says."""

import os
import runpy

os.environ.setdefault('PORTAGE_KILLS', '500')
runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e', 'survival.py'), run_name='__main__')
