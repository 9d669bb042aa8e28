#!/usr/bin/python3
"""tests/e2e/timeouts.py at each millisecond of every call, or at as many moments as PORTAGE_MOMENTS says."""

import os
import runpy

os.environ.setdefault('PORTAGE_MOMENTS', 'all')
runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e', 'timeouts.py'), run_name='__main__')
