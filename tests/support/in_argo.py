"""Run by a Python that has `hera`: prints the JSON schema of Argo's CronWorkflow.

Hera's models are generated from Argo's own OpenAPI description.
"""

import json

from hera.workflows.models import CronWorkflow

if __name__ == "__main__":
    print(json.dumps(CronWorkflow.model_json_schema(by_alias=True)))
