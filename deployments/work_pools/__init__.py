"""Where flow runs run: the work pools, as code. See docs/work-pools.md.

Each kind of pool is a template beside this file, in the form that Prefect keeps it: `job_configuration`, what the
worker makes of a run, and `variables`, what can be set for a pool or for one deployment. A variable with `environment`
takes its value from that variable of the environment in which `headwater deploy` runs; those in `required` must.
"""
