################################################################################
#
# updater
#
################################################################################

UPDATER_VERSION = 0.0
UPDATER_SITE = $(BR2_EXTERNAL_UPDATER_PATH)/../..
UPDATER_SITE_METHOD = local
# Build outputs in the tree stay there.
UPDATER_EXCLUSIONS = bin build dist
UPDATER_LICENSE = Apache-2.0
UPDATER_LICENSE_FILES = LICENSE
UPDATER_DEPENDENCIES = host-go host-updater
HOST_UPDATER_DEPENDENCIES = host-go

# The Makefile has the flags that keep the program small and reproducible. Go fetches the modules that go.sum names; a tree
# with a vendor folder (go mod vendor) needs no network.
UPDATER_GOFLAGS = $(if $(wildcard $(UPDATER_SITE)/vendor),-mod=vendor,-mod=mod -modcacherw)
# go.mod asks for Go 1.26. An older Go of Buildroot (2025.11) fetches the version of go.mod from the same proxy.
UPDATER_GO_ENV = CGO_ENABLED=0 GOTOOLCHAIN=auto GOFLAGS="$(UPDATER_GOFLAGS)" GOPROXY="$(or $(GOPROXY),https://proxy.golang.org)"
UPDATER_STAMP = $(shell git -C $(UPDATER_SITE) log -1 --format=%cI 2>/dev/null)

define UPDATER_BUILD_CMDS
	$(HOST_GO_HOST_ENV) $(UPDATER_GO_ENV) $(MAKE1) -C $(@D) ARCH=$(GO_GOARCH) \
		$(if $(GO_GOARM),GOARM=$(GO_GOARM)) STAMP="$(UPDATER_STAMP)" bin/$(GO_GOARCH)/updater
endef

define UPDATER_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/bin/$(GO_GOARCH)/updater $(TARGET_DIR)/usr/bin/updater
	mkdir -p $(TARGET_DIR)/etc/updater/keys
	$(if $(call qstrip,$(BR2_PACKAGE_UPDATER_CONFIG)),\
		$(INSTALL) -m 0644 $(call qstrip,$(BR2_PACKAGE_UPDATER_CONFIG)) $(TARGET_DIR)/etc/updater/config.toml)
	$(if $(call qstrip,$(BR2_PACKAGE_UPDATER_KEYRING)),\
		$(INSTALL) -m 0644 $(call qstrip,$(BR2_PACKAGE_UPDATER_KEYRING)) $(TARGET_DIR)/etc/updater/keys/)
endef

define UPDATER_INSTALL_INIT_SYSTEMD
	mkdir -p $(TARGET_DIR)/usr/lib/systemd/system
	$(INSTALL) -m 0644 $(@D)/packaging/systemd/* $(TARGET_DIR)/usr/lib/systemd/system/
	mkdir -p $(TARGET_DIR)/usr/lib/systemd/system-preset
	printf 'enable updater-mark-good.service\ndisable updater-*\n' >$(TARGET_DIR)/usr/lib/systemd/system-preset/50-updater.preset
endef

define UPDATER_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(BR2_EXTERNAL_UPDATER_PATH)/package/updater/S99updater $(TARGET_DIR)/etc/init.d/S99updater
endef

ifeq ($(BR2_PACKAGE_UPDATER_INITRAMFS),y)
# A recovery without a certificate can install nothing.
ifeq ($(BR_BUILDING)$(call qstrip,$(BR2_PACKAGE_UPDATER_KEYRING)),y)
$(error BR2_PACKAGE_UPDATER_KEYRING names no certificate: gpg --armor --export KEY >release.asc; make UPDATER_KEYRING=.../release.asc)
endif
UPDATER_INSTALL_IMAGES = YES
UPDATER_DEPENDENCIES += linux
define UPDATER_INSTALL_IMAGES_CMDS
	$(HOST_GO_HOST_ENV) $(UPDATER_GO_ENV) $(MAKE1) -C $(@D) ARCH=$(GO_GOARCH) STAMP="$(UPDATER_STAMP)" \
		MODULES_ROOT=$(TARGET_DIR) KERNEL_VERSION=$(LINUX_VERSION_PROBED) \
		CONFIG=$(call qstrip,$(BR2_PACKAGE_UPDATER_CONFIG)) KEYRING="$(call qstrip,$(BR2_PACKAGE_UPDATER_KEYRING))" \
		INITRAMFS=$(BINARIES_DIR)/updater-initramfs.cpio.zst initramfs
endef
endif

# For board/post-image.sh.
define HOST_UPDATER_BUILD_CMDS
	$(HOST_GO_HOST_ENV) $(UPDATER_GO_ENV) $(MAKE1) -C $(@D) STAMP="$(UPDATER_STAMP)" bin/updater
endef

define HOST_UPDATER_INSTALL_CMDS
	$(INSTALL) -D -m 0755 $(@D)/bin/updater $(HOST_DIR)/bin/updater
endef

$(eval $(generic-package))
$(eval $(host-generic-package))
