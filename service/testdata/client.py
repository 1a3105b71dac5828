"""Installs an image by the service at an address, and reads what the service says of itself."""
import sys
import varlink

address, image = sys.argv[1:]
with varlink.Client(address) as client:
    print(client.get_interfaces().keys() if hasattr(client.get_interfaces(), "keys") else client.get_interfaces())
    with client.open("io.updater") as updater:
        status = updater.Status()["status"]
        assert status["primary"] == "A", status
        events = [reply["event"] for reply in updater.Install(image, _more=True)]
        assert [e["seq"] for e in events] == sorted(e["seq"] for e in events), events
        assert any(e["ev"] == "phase" and e["phase"] == "write" for e in events), events
        assert events[-1]["ev"] == "result" and events[-1]["code"] == 0, events[-1]
        assert updater.Status()["status"]["primary"] == "B"
        print(updater.Activate("A", 1))
        print(updater.Activate("B"))
        try:
            updater.Install(image)
        except varlink.VarlinkError as e:
            assert e.error() == "io.updater.Failed" and e.parameters()["code"] == 3, e
        else:
            raise AssertionError("the same release was installed twice")
        try:
            updater.Install("relative.img")
        except varlink.VarlinkError as e:
            assert e.error() == "org.varlink.service.InvalidParameter", e
        else:
            raise AssertionError("a relative path was taken")
