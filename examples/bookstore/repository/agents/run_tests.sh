#!/usr/bin/env bash
# An agent that tests what the group before it has left: both models, merged. The report is committed with its branch.
set -euo pipefail

echo "Testing both models"
python -m pytest -q | tee TEST_REPORT.txt
