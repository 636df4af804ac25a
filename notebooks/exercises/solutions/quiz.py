"""The quiz of the folder above, for the notebooks here."""

import runpy
from pathlib import Path

quiz = runpy.run_path(str(Path(__file__).resolve().parent.parent / "quiz.py"))["quiz"]
