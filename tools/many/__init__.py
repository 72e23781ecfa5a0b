"""`python dev.py many`, `python tools/many_clips.py`: a folder of clips over several ComfyUI servers.

command    the command line
jobs       the table jobs.csv: one row, one job
prompts    a workflow and a job as the prompt a server runs
results    the folder of a finished job, there whole or not at all
job_queue  which job waits, runs where, is done or failed: the library persist-queue on disk
worker     one thread a server
report     what the user sees
example    a folder to try it with
"""
