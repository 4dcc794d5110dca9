"""Run a notebook in a fresh kernel of this interpreter: python execute_notebook.py NOTEBOOK RESULT FOLDER SECONDS.

A process of its own: nbclient leaves sockets and event loops to the garbage collector, whose warnings would otherwise
fail whatever test is running when it comes round. A failing cell is left in the result, for the test to read.
"""

import sys


def main(source, result, folder, seconds):
    # Imported here: pytest imports this file too, in its search for doctests.
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": folder}}
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=int(seconds), allow_errors=True, record_timing=False, resources=where
    )
    # With no folder to search, "python3" is ipykernel in this interpreter, whatever kernels the machine has.
    client.create_kernel_manager().kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    client.execute()
    nbformat.write(notebook, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
