//! What strict commands got at once though no key holds it, and may not get again: each of
//! these results was kept as proven.

use crate::space::Space;

/// Returns a space whose strict target `t` has `o` as its output.
fn strict(inputs: &str, command: &str) -> Space {
    let space = Space::empty();
    let command = command.replace("[work]", &space.path("").display().to_string());
    let text = format!(
        "target \"t\" {{\n    sandbox \"strict\"\n    {inputs}\n    outputs \"o\"\n    run #\"{command}\"#\n}}\n"
    );
    space.write("Releasefile.kdl", text);
    space
}

#[test]
fn a_link_behind_a_linked_directory_leads_where_the_kernel_says() {
    let space = strict(
        r#"inputs "inc/**" "way/x" "cfg""#,
        "cat inc/x way/x cfg > {out}; test ! -e common/y",
    );
    space
        .write("vendor/lib/common/y", "right\n")
        .write("common/y", "wrong\n")
        .write("sub/y", "right as well\n")
        .write("y", "wrong as well\n")
        .write("releases/shared.conf", "shared\n");
    space.shell(
        "mkdir vendor/lib/inc sub/deep releases/5; ln -s ../common/y vendor/lib/inc/x
         ln -s vendor/lib/inc inc; ln -s ../y sub/deep/x; ln -s sub/deep way
         ln -s releases/5 current; ln -s current/../shared.conf cfg",
    );
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "right\nright as well\nshared\n");
    space.write("common/y", "other\n").write("y", "other\n");
    space.build([]).ok().is("t fresh");
    space.write("sub/y", "changed\n");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "right\nchanged\nshared\n");
}

#[test]
fn every_link_of_a_chain_counts() {
    let space = strict(r#"inputs "l""#, "cat l > {out}; readlink m >> {out}");
    space.write("f", "same\n").write("g", "same\n");
    space.shell("ln -s m l; ln -s f m");
    space.build([]).ok().is("t ran");
    space.shell("ln -sfn g m");
    space.build([]).ok().is("t ran");
    assert_eq!(space.read("o"), "same\ng\n");
    space.build([]).ok().is("t fresh");
}
