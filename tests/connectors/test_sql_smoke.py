from tests.connectors.sql_databases import *
from tests.connectors.examples import raw, counts
def test_s(mysql, warehouse, destination, tmp_path):
    mysql.execute("create table t (id int primary key, v text, f float, d decimal(10,2), ts timestamp(6) null, b blob)", "insert into t values (1,'a',0.1,1.5,'2024-01-01 10:00:00.5', x'00ff'),(2,'',null,null,null,null)")
    s=sql_erp(name="t", primary_key=("id",))
    print(counts(load_sql(s, mysql, destination)))
    print(raw(warehouse,"*","raw_erp.t"))
    q=Sqlite(tmp_path/"x.db"); q.execute("create table u (id integer primary key, v text, d datetime)", "insert into u values (1,'x','2024-01-01'),(2,x'00',5)")
    s=sql_erp(name="u", primary_key=("id",), reject_limit=1)
    print(counts(load_sql(s, q, destination)))
    print(raw(warehouse,"*","raw_erp.u"), warehouse.query("select reason,payload from ops.quarantine"))
    print(counts(load_sql(s, q, destination)))
