"""A folder of clips over several ComfyUI servers: what `tools/many_clips.py` is made of.

jobs       the table jobs.csv: one row, one job
prompts    a workflow and a job as the prompt a server runs
results    the folder of a finished job, there whole or not at all
job_queue  which job waits, runs where, is done or failed: the library persist-queue on disk
client     ComfyUI's HTTP API
worker     one thread a server
report     what the user sees
example    a folder to try it with
"""
