-- The demo's source system: the operations department's database, which Headwater may only read.
\set QUIET on
set log_statement = 'none';

create role operations_owner login password :'operations_owner';
create role operations_app login password :'operations_app';
create database operations owner operations_owner;
revoke all on database operations from public;
grant connect on database operations to operations_app;

-- What time it is in the demo is a setting of the warehouse, which its owner makes.
grant set on parameter headwater.now to headwater_owner;
