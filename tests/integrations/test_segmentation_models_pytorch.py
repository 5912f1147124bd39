def test_example(examples):
    import smp_cells

    assert set(smp_cells.main(["--quick"])) == {"F1", "merged pairs"}
