"""Statements that a controller waits for, as the driver takes them.

SQLAlchemy makes each statement's text and parameters anew. That is quick in a loop, and takes 0.2 to 0.4 ms
where a model has just had the caches of the processor for itself; the driver alone takes a tenth of that.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ClauseElement


class Prepared:
    """A statement whose text is made once for each kind of database. It has a parameter for each of its
    columns or `bindparam`s, by name, and none that stands for several values."""

    def __init__(self, statement: ClauseElement):
        self._statement = statement
        self._texts: dict[str, tuple[str, Sequence[str] | None]] = {}

    def run(self, connection: Connection, rows: Sequence[Mapping[str, Any]] = ({},)) -> list[Any]:
        """Run it for each row of parameters, in the transaction of the connection; what it finds for a
        single one, as tuples. Raises DBAPIError."""
        text, names = self._text(connection.dialect)
        given = rows if names is None else [tuple([row[name] for name in names]) for row in rows]
        driver, cursor = connection.dialect.loaded_dbapi, connection.connection.cursor()
        try:
            if len(given) == 1:
                cursor.execute(text, given[0])
                return list(cursor.fetchall()) if cursor.description else []
            cursor.executemany(text, given)
            return []
        except driver.Error as error:
            wrong = DBAPIError.instance(text, None, error, driver.Error, dialect=connection.dialect)
            raise wrong from error
        finally:
            cursor.close()

    def _text(self, dialect: Dialect) -> tuple[str, Sequence[str] | None]:
        """And the order of parameters, where the driver takes them in one."""
        if dialect.name not in self._texts:
            made: Any = self._statement.compile(dialect=dialect)
            self._texts[dialect.name] = str(made), (made.positiontup or ()) if made.positional else None
        return self._texts[dialect.name]
