"""roles and permissions

Revision ID: 8a2f6c0d4e17
Revises: 7e1d94c2a6b0
Create Date: 2026-11-30 20:40:00.000000+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "8a2f6c0d4e17"
down_revision: str | Sequence[str] | None = "7e1d94c2a6b0"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "auth_roles",
        sa.Column("id", _BIGINT, nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.UniqueConstraint("name", name=op.f("uq_auth_roles_name")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auth_roles")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "auth_permissions",
        sa.Column("id", _BIGINT, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("description", sa.String(length=200), nullable=False),
        sa.Column("is_declared", sa.Boolean(), nullable=False),
        sa.UniqueConstraint("name", name=op.f("uq_auth_permissions_name")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auth_permissions")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "auth_role_permissions",
        sa.Column("id", _BIGINT, nullable=False),
        sa.Column("role_id", _BIGINT, nullable=False),
        sa.Column("permission", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["role_id"],
            ["auth_roles.id"],
            name=op.f("fk_auth_role_permissions_role_id_auth_roles"),
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("role_id", "permission", name=op.f("uq_auth_role_permissions_role_id_permission")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auth_role_permissions")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "auth_user_roles",
        sa.Column("id", _BIGINT, nullable=False),
        sa.Column("user_id", _BIGINT, nullable=False),
        sa.Column("role_id", _BIGINT, nullable=False),
        sa.Column("granted_by_id", _BIGINT, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["auth_users.id"], name=op.f("fk_auth_user_roles_user_id_auth_users"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["role_id"], ["auth_roles.id"], name=op.f("fk_auth_user_roles_role_id_auth_roles"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("user_id", "role_id", name=op.f("uq_auth_user_roles_user_id_role_id")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auth_user_roles")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_auth_user_roles_role_id", "auth_user_roles", ["role_id"])
    op.execute(
        "INSERT INTO auth_roles (name, description, created_at, updated_at) VALUES "
        "('admin', 'Holds every permission', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP), "
        "('member', 'Every new account', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
    )
    op.execute(
        "INSERT INTO auth_user_roles (user_id, role_id, created_at, updated_at) "
        "SELECT auth_users.id, auth_roles.id, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP FROM auth_users, auth_roles "
        "WHERE auth_roles.name = 'member' OR (auth_roles.name = 'admin' AND auth_users.is_superuser)"
    )
    op.add_column("auth_sessions", sa.Column("scope", sa.Text(), nullable=True))


def downgrade() -> None:
    # `is_superuser` is kept in step with the role. Sessions with a scope would become wider: they end.
    op.execute("DELETE FROM auth_sessions WHERE scope IS NOT NULL")
    op.drop_column("auth_sessions", "scope")
    for table in ("auth_user_roles", "auth_role_permissions", "auth_permissions", "auth_roles"):
        op.drop_table(table)
