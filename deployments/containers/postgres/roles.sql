-- The roles and databases of a new server, as docs/roles.md has them (a test compares the two). Passwords are psql's
-- variables, which are quoted here and appear in no log.
\set QUIET on
set log_statement = 'none';

create role headwater_owner login password :'owner';
create role headwater_loader login password :'loader';
create role headwater_transformer login password :'transformer';
create role headwater_publisher login password :'publisher';
create role headwater_watcher login password :'watcher';
create role headwater_reader login password :'reader';
create database headwater owner headwater_owner;
revoke all on database headwater from public;
grant connect on database headwater
    to headwater_loader, headwater_transformer, headwater_publisher, headwater_watcher, headwater_reader;

-- Prefect's own database, which nobody else enters. Its migrations take the extension for granted.
create role prefect login password :'prefect';
create database prefect owner prefect;
revoke all on database prefect from public;
\connect prefect
create extension if not exists pg_trgm;
