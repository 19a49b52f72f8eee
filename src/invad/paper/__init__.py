"""What only the paper needs: its recipes, its checkpoints, its ablations.

Order of imports: reference, recipes, adopt, ablation.
"""
