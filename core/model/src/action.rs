//! What can be asked of Bulkhead; each is an action of the Cedar schema, by the same name.

macro_rules! actions {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Action { $($variant),+ }

        impl Action {
            pub const ALL: &'static [Action] = &[$(Action::$variant),+];

            /// The Cedar action id.
            pub fn name(self) -> &'static str {
                match self { $(Action::$variant => $name),+ }
            }
        }
    };
}

actions! {
    SystemRead = "system.read",
    SystemEvents = "system.events",
    RegistryLogin = "registry.login",
    ContainerList = "container.list",
    ContainerInspect = "container.inspect",
    ContainerLogs = "container.logs",
    ContainerAttach = "container.attach",
    ContainerExec = "container.exec",
    ContainerWait = "container.wait",
    ContainerDiff = "container.diff",
    ContainerTop = "container.top",
    ContainerStats = "container.stats",
    ContainerExport = "container.export",
    ContainerArchiveRead = "container.archive.read",
    ContainerArchiveWrite = "container.archive.write",
    ContainerCommit = "container.commit",
    ContainerCreate = "container.create",
    ContainerStart = "container.start",
    ContainerStop = "container.stop",
    ContainerRestart = "container.restart",
    ContainerPause = "container.pause",
    ContainerUnpause = "container.unpause",
    ContainerKill = "container.kill",
    ContainerRename = "container.rename",
    ContainerUpdate = "container.update",
    ContainerRemove = "container.remove",
    ContainerPrune = "container.prune",
    ImageList = "image.list",
    ImageInspect = "image.inspect",
    ImagePull = "image.pull",
    ImageTag = "image.tag",
    ImageRemove = "image.remove",
    ImagePrune = "image.prune",
    ImageLoad = "image.load",
    ImageSave = "image.save",
    NetworkList = "network.list",
    NetworkCreate = "network.create",
    NetworkRemove = "network.remove",
    NetworkPrune = "network.prune",
    NetworkConnect = "network.connect",
    NetworkDisconnect = "network.disconnect",
    VolumeList = "volume.list",
    VolumeInspect = "volume.inspect",
    VolumeCreate = "volume.create",
    VolumeRemove = "volume.remove",
    VolumePrune = "volume.prune",
    VchCreate = "vch.create",
    VchList = "vch.list",
    VchInspect = "vch.inspect",
    VchUpdate = "vch.update",
    VchDelete = "vch.delete",
    DecisionRead = "decision.read",
    PolicyRead = "policy.read",
    PolicyEdit = "policy.edit",
    PolicyActivate = "policy.activate",
    PluginList = "plugin.list",
    PluginInstall = "plugin.install",
    PluginRemove = "plugin.remove",
    BindingList = "binding.list",
    BindingPut = "binding.put",
    BindingRemove = "binding.remove",
    TemplateList = "template.list",
    TemplateBuild = "template.build",
    TemplateRemove = "template.remove",
    MachineList = "machine.list",
}

impl Action {
    /// Whether it only tells: a permission of it is not recorded.
    pub fn is_read(self) -> bool {
        match self {
            Action::SystemRead
            | Action::SystemEvents
            | Action::ContainerList
            | Action::ContainerInspect
            | Action::ContainerLogs
            | Action::ContainerWait
            | Action::ContainerDiff
            | Action::ContainerTop
            | Action::ContainerStats
            | Action::ImageList
            | Action::ImageInspect
            | Action::NetworkList
            | Action::VolumeList
            | Action::VolumeInspect
            | Action::VchList
            | Action::VchInspect
            | Action::DecisionRead
            | Action::PolicyRead
            | Action::PluginList
            | Action::BindingList
            | Action::TemplateList
            | Action::MachineList => true,
            Action::RegistryLogin
            | Action::ContainerAttach
            | Action::ContainerExec
            | Action::ContainerExport
            | Action::ContainerArchiveRead
            | Action::ContainerArchiveWrite
            | Action::ContainerCommit
            | Action::ContainerCreate
            | Action::ContainerStart
            | Action::ContainerStop
            | Action::ContainerRestart
            | Action::ContainerPause
            | Action::ContainerUnpause
            | Action::ContainerKill
            | Action::ContainerRename
            | Action::ContainerUpdate
            | Action::ContainerRemove
            | Action::ContainerPrune
            | Action::ImagePull
            | Action::ImageTag
            | Action::ImageRemove
            | Action::ImagePrune
            | Action::ImageLoad
            | Action::ImageSave
            | Action::VolumeCreate
            | Action::VolumeRemove
            | Action::VolumePrune
            | Action::NetworkCreate
            | Action::NetworkRemove
            | Action::NetworkPrune
            | Action::NetworkConnect
            | Action::NetworkDisconnect
            | Action::VchCreate
            | Action::VchUpdate
            | Action::VchDelete
            | Action::PolicyEdit
            | Action::PolicyActivate
            | Action::PluginInstall
            | Action::PluginRemove
            | Action::BindingPut
            | Action::BindingRemove
            | Action::TemplateBuild
            | Action::TemplateRemove => false,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
