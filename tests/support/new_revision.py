"""Write the next revision of the tables: `python -m tests.support.new_revision "what changes"`.

Alembic compares `orchestrator/state/tables.py` with a database that all revisions so far were run on. Read what it
wrote before you commit it: it sees no renames and no changed CHECK. Then raise `HEAD` in
`orchestrator/state/migrations/__init__.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from alembic.command import revision
from alembic.config import Config

from orchestrator.state import migrations
from orchestrator.state.engine import create_engine
from orchestrator.state.migrate import run_revisions
from tests.support.services import Services


def main(message: str) -> None:
    versions = Path(migrations.__file__).parent / "versions"
    number = f"{1 + max((int(path.name[:4]) for path in versions.glob('0*.py')), default=0):04}"
    services = Services()
    engine = create_engine(services.postgres.new_empty_database())
    try:
        with engine.begin() as connection:
            run_revisions(connection)
            config = Config()
            config.set_main_option("script_location", "orchestrator.state:migrations")
            config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
            config.attributes["connection"] = connection
            revision(config, message, autogenerate=True, rev_id=number)
    finally:
        engine.dispose()
        services.close()
    (written,) = versions.glob(f"{number}_*.py")
    # The models name constraints by convention; Alembic marks such names with `op.f`, which op.create_table needs.
    written.write_text(re.sub(r" *# #+.*#+\n", "", written.read_text()))
    subprocess.run([sys.executable, "-m", "ruff", "check", "--fix", "--quiet", written], check=False)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", written], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
