"""The one door to Postgres: connections, migrations, and one module per table noun."""
