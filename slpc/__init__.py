"""slpc: a compiler for straight-line numeric programs."""

from pathlib import Path

# In a checkout ir/, passes/ and backends/ lie beside this folder; an installed copy has them inside it.
if (Path(__file__).parent.parent / "ir" / "ops.py").is_file():
    __path__.append(str(Path(__file__).parent.parent))
